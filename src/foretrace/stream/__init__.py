"""Learning from one endless stream, sample by sample: regression, forecasting, classification.

Pure functions of a plan (what is fixed) and a state (all that continues). Under each of them is a small
recurrent network that learns at every sample from its whole past; beside it stand simple experts, such as
persistence, and an online mixture that is nearly as good as the best of them. `foretrace.river` makes River
estimators of them, `foretrace forecast` a command.
"""

from foretrace.stream._changes import Plan, State, experts, weights_of
from foretrace.stream._classification import Classes, ClassState
from foretrace.stream._compiled import (
    Compiled,
    Outlook,
    Packed,
    classification,
    float_array,
    forecasting,
    outlook,
    regression,
    run_rows,
)
from foretrace.stream._experts import weights
from foretrace.stream._forecast import Stream
from foretrace.stream._interval import bounds
from foretrace.stream._network import CELLS, grown
from foretrace.stream._regression import Said

__all__ = [
    "CELLS",
    "ClassState",
    "Classes",
    "Compiled",
    "Outlook",
    "Packed",
    "Plan",
    "Said",
    "State",
    "Stream",
    "bounds",
    "classification",
    "experts",
    "float_array",
    "forecasting",
    "grown",
    "outlook",
    "regression",
    "run_rows",
    "weights",
    "weights_of",
]
