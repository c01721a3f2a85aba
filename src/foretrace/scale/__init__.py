"""How does it run on many devices and machines? Meshes for one network, Ray for many runs."""

from foretrace.scale._layout import Layout, spread_of
from foretrace.scale._mesh import mesh, parse_mesh
from foretrace.scale._shard import carry_shardings, shard, shard_chunk, shard_trainer
from foretrace.scale._traffic import Collective, collectives, held, sent

__all__ = [
    "Collective",
    "Layout",
    "carry_shardings",
    "collectives",
    "held",
    "mesh",
    "parse_mesh",
    "sent",
    "shard",
    "shard_chunk",
    "shard_trainer",
    "spread_of",
]
