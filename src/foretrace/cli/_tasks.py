"""Options for every task, and what they come to: the stream and the network that learns it."""

import dataclasses
import inspect
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import docstring_parser
import jax
import tyro

from foretrace import cells, training
from foretrace._checks import UserError, check_positive_int
from foretrace._types import Cell
from foretrace.cli import _job
from foretrace.tasks import TASKS, Metric, Task, read_text

if TYPE_CHECKING:
    CellName = str
else:
    CellName = Literal[tuple(cells.CELLS)]


class Problem(NamedTuple):
    """A task and the cell that learns it.

    Attributes:
        task: the stream.
        cell: the dynamics.
        network: the cell, in words.
        main: the metric by which learners are compared.
    """

    task: Task
    cell: Cell
    network: str
    main: Metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(_job.Settings):
    """Options of a task that leaves the choice of the network."""

    cell: CellName = "highway"
    """Recurrent cell."""
    hidden: int = 32
    """Units of the cell."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text(Network):
    """Options of the task that reads files."""

    file: Path
    """Text to learn from, read again and again."""
    valid: Path | None = None
    """Text on which the network is measured while it learns."""
    test: Path | None = None
    """Text on which it is measured at the end."""
    eval_every: int = 10_000
    """About how many steps from one measurement on --valid to the next."""
    reset: int = 100
    """Bytes after which a lane's hidden state and past begin anew; 0 for never."""


def options_for(command: type, name: str, purpose: str) -> Any:
    """The options of a command on a task, as one dataclass whose docstring is the help text."""
    spec = TASKS[name]
    base, fields = Text, []
    if name != "text":
        base = _job.Settings if spec.make().cell else Network
        texts = {p.arg_name: p.description for p in docstring_parser.parse(spec.make.__doc__ or "").params}
        for option in inspect.signature(spec.make).parameters.values():
            text = texts.get(option.name) or ""
            hint = Annotated[option.annotation, tyro.conf.arg(help=text[:1].upper() + text[1:])]
            fields.append((option.name, hint, option.default))
    hints = typing.get_type_hints(base, include_extras=True)
    fields += [(option, hints[option], value) for option, value in spec.defaults.items()]
    typed = f"  foretrace {command.__name__.lower()} {name} "
    examples = [(typed + words).rstrip() for words in spec.examples]
    text = "\n".join((f"{purpose} {spec.purpose}\n\n{command.__doc__}\n\nExamples:", *examples, ""))
    return dataclasses.make_dataclass(
        command.__name__,
        fields,
        bases=(command, base),
        namespace={"__doc__": text},
        frozen=True,
        kw_only=True,
    )


def problem_of(name: str, options: Any) -> Problem:
    """The task of that name and the network that learns it.

    Raises:
        UserError: an option is out of range.
    """
    if name == "text":
        return _text_problem(options)
    make = TASKS[name].make
    values = {option: getattr(options, option) for option in inspect.signature(make).parameters}
    return _problem(make(**values), options)


def _problem(task: Task, options: Any) -> Problem:
    main = task.shown[0] if task.shown else task.loss_metric
    if task.cell:
        size = sum(leaf.size for leaf in jax.tree.leaves(task.cell.initial_hidden()))
        return Problem(task, task.cell, f"the task's own cell, {size} units", main)
    cell = cells.CELLS[options.cell](hidden=options.hidden, inputs=task.inputs)
    return Problem(task, cell, f"{options.cell}, {options.hidden} units", main)


def _text_problem(options: Any) -> Problem:
    """The task with its files, and the losses on other files as its metrics."""
    check_positive_int("eval_every", options.eval_every, "use 10000")
    if options.reset < 0:
        raise UserError(f"reset must be an int >= 0; got {options.reset}; the papers have 100.")
    corpus = read_text(options.file)
    problem = _problem(TASKS["text"].make(corpus, options.reset or None), options)
    shown = []
    for name, every in {"valid": options.eval_every, "test": options.steps}.items():
        if path := getattr(options, name):
            symbols = read_text(path, name, corpus.alphabet).symbols
            measure = training.evaluation(problem.cell, problem.task, symbols)
            shown.append(Metric(name, f"bits per byte on {path.name}", measure, every, is_loss=True))
    # Measured along the way, the loss on other text tells more than the loss itself.
    main = shown[0] if options.valid else problem.main
    return problem._replace(task=problem.task._replace(shown=tuple(shown)), main=main)
