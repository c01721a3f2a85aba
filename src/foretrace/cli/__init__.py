"""What did the user type? A module for each command: it parses, calls the library and prints."""

from foretrace.cli._main import main

__all__ = ["main"]
