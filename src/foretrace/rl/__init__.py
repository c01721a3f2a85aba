"""Who learns from a live world? Agents with memory, one update at every step, and where they live."""

from foretrace.rl import environments

__all__ = ["environments"]
