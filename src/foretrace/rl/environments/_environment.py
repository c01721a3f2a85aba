"""An environment: a world that an agent acts in, as two pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float


class Discrete(NamedTuple):
    """Actions 0 .. size - 1, as ints."""

    size: int


class Continuous(NamedTuple):
    """Actions that are vectors of `size` floats."""

    size: int


class Outcome(NamedTuple):
    """What one action leads to.

    Attributes:
        observation: what the agent sees next; of the last step too, where a bootstrap may need it.
        reward: of this step; where nothing is to be done, the number whose discounted sum is predicted.
        terminated: whether the episode is over, and nothing follows.
        truncated: whether it was cut off, though something would have followed.
    """

    observation: Float[Array, " n"]
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]


class Environment(NamedTuple):
    """A world as pure functions, for `jax.jit`, `jax.vmap` and `lax.scan`.

    It never resets itself: whoever steps it calls `reset` after an outcome that ended an episode, and so
    has the last observation of that episode. All randomness comes from the key that `reset` was given,
    which the state carries on.

    Attributes:
        reset: `(key) -> (state, observation)`, the start of an episode.
        step: `(state, action) -> (state, outcome)`. It is not defined after the end of an episode.
        observations: length of an observation.
        actions: `Discrete(n)` or `Continuous(n)`; None where there is nothing to do but to predict.
        discount: gamma that the literature uses here.
        succeeded: `(outcome) -> bool`, whether an episode that ends with this outcome reached its aim; None
            where the return says it all.
        best: the largest return of an episode, or None.
    """

    reset: Callable[[Any], tuple[Any, Any]]
    step: Callable[[Any, Any], tuple[Any, Outcome]]
    observations: int
    actions: Discrete | Continuous | None
    discount: float = 0.99
    succeeded: Callable[[Outcome], Any] | None = None
    best: float | None = None


class EnvironmentSpec(NamedTuple):
    """An environment as commands offer it.

    Attributes:
        name: the word that names it.
        make: the environment; its keyword arguments become options.
        purpose: one line for the help text.
        defaults: options of a run whose usual values do not suit this environment.
        examples: words after `foretrace rl NAME`.
    """

    name: str
    make: Callable[..., Environment]
    purpose: str
    defaults: dict[str, Any] = {}  # noqa: RUF012
    examples: tuple[str, ...] = ("",)
