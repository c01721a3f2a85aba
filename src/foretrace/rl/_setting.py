"""An agent as data: the words and numbers from which commands and experiments build one."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import optax

from foretrace import cells, learners
from foretrace._checks import UserError, check_positive_int
from foretrace._types import Cell, Learner
from foretrace.rl._agent import Agent, World
from foretrace.rl._encoder import normed_layer
from foretrace.rl._network import Body
from foretrace.rl._qrc import qrc
from foretrace.rl._steps import StepRule, adaptive_obgd, by_optax, intentional, obgd
from foretrace.rl._stream_ac import stream_ac
from foretrace.rl._stream_q import stream_q
from foretrace.rl._td import td

_AGENTS = {agent.__name__: agent for agent in (stream_ac, stream_q, qrc, td)}
_RULES = {"obgd": 1.0, "adaptive_obgd": 1.0, "intentional": 0.5, "adam": 3e-4, "sgd": 1e-3}  # usual rates
# Linear in the past: without a nonlinearity a head would see a linear filter of the inputs.
_LINEAR = ("diagonal", "rtu", "gtu")
if TYPE_CHECKING:
    AgentName = str
    CellName = str
    RuleName = str
else:
    AgentName = Literal[tuple(_AGENTS)]
    CellName = Literal[tuple(cells.CELLS)]
    RuleName = Literal[tuple(_RULES)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Everything about an agent but the world it lives in."""

    agent: AgentName = "stream_ac"
    """Actor and critic, values of actions, the same by gradients of the error, or prediction."""
    learner: str = "rtrl"
    """One of those that `foretrace learners` lists; low_rank:4 and tbptt:5 set rank and window."""
    cell: CellName = "mingru"
    """Recurrent cell."""
    hidden: int = 64
    """Units of the cell."""
    layers: int = 1
    """Recurrent layers, one on the other, learned as one cell."""
    encoder: int = 0
    """Features of a layer before the cell; 0 for none."""
    encoder_inside: bool = False
    """Whether credit reaches that layer through the whole past, as a part of the cell."""
    discount: float | None = None
    """Gamma; that of the environment unless given."""
    trace_decay: float = 0.8
    """Lambda, by which, times gamma, eligibility traces fade."""
    rule: RuleName = "obgd"
    """Step rule of every network."""
    rate: float | None = None
    """Step size of values; the usual one of rule and agent unless given."""
    policy_rate: float | None = None
    """Step size of the policy; a tenth of the usual one for intentional, else as for values."""
    kappa: float = 2.0
    """How careful obgd is with values."""
    policy_kappa: float = 3.0
    """How careful obgd is with the policy."""
    entropy: float = 0.01
    """Weight of the policy's entropy."""
    explore: float = 0.01
    """Probability of a random action, in the end, where actions are valued."""
    explore_steps: int = 25_000
    """Steps over which it falls to that."""
    scale_observations: bool = True
    """Whether observations are scaled by their statistics."""
    scale_rewards: bool = True
    """Whether rewards are scaled by those of their discounted sums; predictions never are."""


def build(
    setting: Setting,
    world: World,
    discount: float,
    *,
    learner: Callable[[Cell], Learner] | None = None,
    rule: StepRule | None = None,
) -> Agent:
    """The agent of a setting.

    Args:
        setting: words and numbers.
        world: observations and actions.
        discount: gamma, where the setting has none.
        learner: in the place of the setting's.
        rule: of every network, in the place of the setting's.

    Raises:
        TypeError, ValueError: a number is out of range, or the parts do not fit each other.
    """
    discount = discount if setting.discount is None else setting.discount
    common: dict[str, Any] = {
        "discount": discount,
        "trace_decay": setting.trace_decay,
        "scale_observations": setting.scale_observations,
    }
    explored = {"explore": setting.explore, "explore_steps": setting.explore_steps}
    body, scaled = body_of(setting, learner), {"scale_rewards": setting.scale_rewards}
    if (setting.agent == "td") != (world.actions is None):
        right = "td" if world.actions is None else "stream_ac, stream_q or qrc"
        raise UserError(f"agent must be {right} here; got {setting.agent!r}; give another --agent.")
    value = rule or rule_of(setting, discount)
    if setting.agent == "td":
        return td(world, body, rule=value, **common)
    if setting.agent == "stream_q":
        return stream_q(world, body, rule=value, **common, **explored, **scaled)
    if setting.agent == "qrc":
        rate = {} if setting.rate is None else {"rate": setting.rate}
        # The rules of a setting are for traces; qrc has its own.
        return qrc(world, body, rule=rule, correction_rule=rule, **rate, **common, **explored, **scaled)
    policy = rule or rule_of(setting, discount, for_policy=True)
    return stream_ac(
        world, body, value_rule=value, policy_rule=policy, entropy=setting.entropy, **common, **scaled
    )


def body_of(setting: Setting, learner: Callable[[Cell], Learner] | None = None) -> Body:
    """Encoder, cell and learner of a setting, or another learner."""
    check_positive_int("layers", setting.layers, "1 is usual")
    choice, make = learners.parse(setting.learner), cells.CELLS[setting.cell]

    def cell(inputs):
        stacked = [make(hidden=setting.hidden, inputs=inputs)]
        for _ in range(setting.layers - 1):
            below = jax.eval_shape(lambda: stacked[-1].output(stacked[-1].initial_hidden()))
            stacked.append(make(hidden=setting.hidden, inputs=below.shape[0]))
        return stacked[0] if setting.layers == 1 else cells.stack(stacked)

    features = {"features": jnp.tanh} if setting.cell in _LINEAR else {}
    encoder = normed_layer(setting.encoder) if setting.encoder else None
    return Body(cell, learner or choice.build, encoder, setting.encoder_inside, **features)


def rule_of(setting: Setting, discount: float, *, for_policy: bool = False) -> StepRule:
    """The step rule of the value, or of the policy."""
    # A step moves the value of one action, and the bootstrap takes the greatest of all.
    careful = setting.rule == "intentional" and setting.agent == "stream_q"
    usual = 0.25 if careful else _RULES[setting.rule]
    rate = usual if setting.rate is None else setting.rate
    if for_policy:
        reduced = 0.1 * usual if setting.rule == "intentional" else rate
        rate = reduced if setting.policy_rate is None else setting.policy_rate
    kappa = setting.policy_kappa if for_policy else setting.kappa
    if setting.rule == "intentional":
        return intentional(rate, fading=discount * setting.trace_decay, scale_error=for_policy)
    if setting.rule in ("adam", "sgd"):
        return by_optax({"adam": optax.adam, "sgd": optax.sgd}[setting.rule](rate))
    return {"obgd": obgd, "adaptive_obgd": adaptive_obgd}[setting.rule](rate, kappa)
