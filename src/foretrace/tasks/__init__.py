"""Tasks: endless streams as pure functions that run inside scan."""

from foretrace.tasks._task import Example, Task
from foretrace.tasks.copy import CopyState, copy

__all__ = ["CopyState", "Example", "Task", "copy"]
