"""The command line."""

from foretrace.cli._main import main

__all__ = ["main"]
