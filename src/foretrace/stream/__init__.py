"""How does a model learn at every sample of an endless stream?

Regression, forecasting and classification are pure functions of a configuration (constants) and a state
(everything that continues). Each has a small recurrent network that learns at every sample from its whole
past; beside it stand simple experts, such as persistence, and an online mixture that is nearly as good as
the best of them. `foretrace.river` makes River estimators of them, `foretrace.forecast` an application.
"""

from foretrace.stream._ahead import expert_names as forecast_experts
from foretrace.stream._calendar import unknown as unknown_calendar
from foretrace.stream._classification import ClassConfig, ClassPrediction, ClassState
from foretrace.stream._compiled import (
    Compiled,
    Packed,
    classification,
    float_array,
    forecasting,
    regression,
    run_rows,
)
from foretrace.stream._forecast import ForecastResult, ForecastState
from foretrace.stream._interval import offsets
from foretrace.stream._model import expert_names, weights_of
from foretrace.stream._network import CELLS, enlarge
from foretrace.stream._origin import from_pairs, pairs
from foretrace.stream._regression import Prediction
from foretrace.stream._seasons import FOUND
from foretrace.stream._state import Config, State

__all__ = [
    "CELLS",
    "FOUND",
    "ClassConfig",
    "ClassPrediction",
    "ClassState",
    "Compiled",
    "Config",
    "ForecastResult",
    "ForecastState",
    "Packed",
    "Prediction",
    "State",
    "classification",
    "enlarge",
    "expert_names",
    "float_array",
    "forecast_experts",
    "forecasting",
    "from_pairs",
    "offsets",
    "pairs",
    "regression",
    "run_rows",
    "unknown_calendar",
    "weights_of",
]
