"""How does a user of River learn from a stream with memory?

Needs the extra `foretrace[river]`. Each estimator turns features by name into vectors, calls the functions
of `foretrace.stream`, and carries their state for ever. It composes with River's pipelines and evaluations,
and needs no knowledge of JAX.
"""

try:
    import river  # noqa: F401
except ImportError:
    raise ImportError(
        "foretrace.river needs the package river; it is not installed; pip install 'foretrace[river]'."
    ) from None

from foretrace.river._classifier import RecurrentClassifier
from foretrace.river._forecaster import RecurrentForecaster
from foretrace.river._regressor import RecurrentRegressor

__all__ = ["RecurrentClassifier", "RecurrentForecaster", "RecurrentRegressor"]
