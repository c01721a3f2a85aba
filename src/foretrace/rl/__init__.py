"""Who learns from a live world? Agents with memory, one update at every step, and where they live."""

from foretrace.rl import environments
from foretrace.rl._adapters import Played, from_gymnasium, from_gymnax
from foretrace.rl._agent import Agent, AgentState, Spaces, jit_act
from foretrace.rl._encoder import Encoder, encoded, normed_layer, sparse_uniform
from foretrace.rl._life import Life, Living, Tally, living
from foretrace.rl._live import live
from foretrace.rl._network import Body, Network, network
from foretrace.rl._played_streams import played_streams
from foretrace.rl._policy import Policy, discrete, gaussian, policy_of
from foretrace.rl._qrc import qrc
from foretrace.rl._senses import Senses, senses
from foretrace.rl._setting import Setting, build
from foretrace.rl._steps import StepRule, adaptive_obgd, by_optax, intentional, obgd
from foretrace.rl._stream_ac import stream_ac
from foretrace.rl._stream_q import stream_q
from foretrace.rl._streams import Stream, streams_of
from foretrace.rl._td import td

__all__ = [
    "Agent",
    "AgentState",
    "Body",
    "Encoder",
    "Life",
    "Living",
    "Network",
    "Played",
    "Policy",
    "Senses",
    "Setting",
    "Spaces",
    "StepRule",
    "Stream",
    "Tally",
    "adaptive_obgd",
    "build",
    "by_optax",
    "discrete",
    "encoded",
    "environments",
    "from_gymnasium",
    "from_gymnax",
    "gaussian",
    "intentional",
    "jit_act",
    "live",
    "living",
    "network",
    "normed_layer",
    "obgd",
    "played_streams",
    "policy_of",
    "qrc",
    "senses",
    "sparse_uniform",
    "stream_ac",
    "stream_q",
    "streams_of",
    "td",
]
