"""River estimators that carry their state for ever and learn at every sample (extra `foretrace[river]`).

They compose with River's pipelines and evaluations, and need no knowledge of JAX.
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
