"""What does the agent live in? Environments whose past matters, one a file, in pure JAX."""

from foretrace.rl.environments import (
    _k_memory_chain,
    _memory_chain,
    _repeat,
    _stateless_cartpole,
    _t_maze,
    _trace_conditioning,
    _trace_patterning,
)
from foretrace.rl.environments._environment import (
    Continuous,
    Discrete,
    Environment,
    EnvironmentSpec,
    Outcome,
)
from foretrace.rl.environments._k_memory_chain import k_memory_chain
from foretrace.rl.environments._memory_chain import memory_chain
from foretrace.rl.environments._repeat import repeat_first, repeat_previous
from foretrace.rl.environments._stateless_cartpole import stateless_cartpole
from foretrace.rl.environments._t_maze import t_maze
from foretrace.rl.environments._trace_conditioning import trace_conditioning
from foretrace.rl.environments._trace_patterning import trace_patterning

ENVIRONMENTS = {
    spec.name: spec
    for spec in (
        _memory_chain.SPEC,
        _k_memory_chain.SPEC,
        _t_maze.SPEC,
        _trace_conditioning.SPEC,
        _trace_patterning.SPEC,
        *_repeat.SPECS,
        _stateless_cartpole.SPEC,
    )
}

__all__ = [
    "ENVIRONMENTS",
    "Continuous",
    "Discrete",
    "Environment",
    "EnvironmentSpec",
    "Outcome",
    "k_memory_chain",
    "memory_chain",
    "repeat_first",
    "repeat_previous",
    "stateless_cartpole",
    "t_maze",
    "trace_conditioning",
    "trace_patterning",
]
