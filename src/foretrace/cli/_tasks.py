"""The tasks that can be typed, with their options, and what each of them comes to."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from foretrace import cells, tasks, training
from foretrace._checks import UserError, check_count
from foretrace._types import Cell
from foretrace.cli import _job
from foretrace.tasks import Task
from foretrace.training import Measure

if TYPE_CHECKING:
    CellName = str
else:
    CellName = Literal[tuple(cells.CELLS)]


class Problem(NamedTuple):
    """What is to be learned, and by what.

    Attributes:
        task: the stream.
        cell: the dynamics.
        network: the cell, in words.
        measures: what is measured beside the loss.
        shown: the record's entry that tells how well it is learned.
        goal: where `shown` should arrive and what to call that, or None.
    """

    task: Task
    cell: Cell
    network: str
    shown: str
    measures: tuple[Measure, ...] = ()
    goal: tuple[float, str] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(_job.Settings):
    """A task that leaves the choice of the network."""

    cell: CellName = "highway"
    """Recurrent cell."""
    hidden: int = 32
    """Units of the cell."""

    def problem_of(
        self, task: Task, shown: str | None = None, measures: tuple[Measure, ...] = ()
    ) -> Problem:
        """The network on a task; what is shown is the loss unless given."""
        cell = cells.CELLS[self.cell](hidden=self.hidden, inputs=task.inputs)
        goal = (task.floor, f"floor {task.floor:.3f}") if task.floor else None
        return Problem(
            task, cell, f"{self.cell}, {self.hidden} units", shown or task.loss.name, measures, goal
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Copy(Network):
    """the copy task: hear T random bits, wait, say them again; T rises whenever it is solved."""

    examples: ClassVar = (
        "",
        "--learner ok:16 --hidden 128 --steps 100000 --out runs/big",
        "--learner tbptt:5 --cell gru --out runs/gru",
    )

    def problem(self) -> Problem:
        """Task and network."""
        return self.problem_of(tasks.copy(), "T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text(Network):
    """the characters of a text file: predict the next one, in bits per character."""

    examples: ClassVar = (
        "--file book.txt",
        "--file train.txt --valid valid.txt --test test.txt --hidden 256",
    )
    file: Path
    """Text to learn from, read again and again."""
    valid: Path | None = None
    """Text on which the network is measured while it learns."""
    test: Path | None = None
    """Text on which it is measured at the end."""
    eval_every: int = 10_000
    """About how many steps from one measurement on --valid to the next."""
    reset: int = 100
    """Characters after which a lane's hidden state and past begin anew; 0 for never."""
    hidden: int = 128
    lanes: int = 32
    learning_rate: float = 1e-3
    steps: int = 20_000

    def problem(self) -> Problem:
        """Task and network."""
        check_count("eval_every", self.eval_every, "use 10000")
        if self.reset < 0:
            raise UserError(f"reset must be an int >= 0; got {self.reset}; the papers have 100.")
        corpus = tasks.read_text(self.file)
        found = self.problem_of(tasks.text(corpus, self.reset or None))
        measures = []
        for name, every in {"valid": self.eval_every, "test": self.steps}.items():
            path = getattr(self, name)
            if path is not None:
                symbols = tasks.read_text(path, name, corpus.alphabet).symbols
                measures.append(Measure(name, training.evaluation(found.cell, found.task, symbols), every))
        shown = "valid" if self.valid else found.shown
        return found._replace(shown=shown, measures=tuple(measures))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Strings(Network):
    """The network and the optimiser of the UORO paper's tasks."""

    cell: CellName = "gru"
    hidden: int = 64
    lanes: int = 1
    learning_rate: float = 1e-3
    decay: float = 0.03
    steps: int = 100_000
    chunk: int = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Anbn(_Strings):
    """the strings a^n b^n: as many b as there were a, in bits per character."""

    examples: ClassVar = ("", "--learner uoro --steps 1000000 --out runs/uoro")
    longest: int = 32
    """The largest n."""

    def problem(self) -> Problem:
        """Task and network."""
        return self.problem_of(tasks.anbn(self.longest))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Brackets(_Strings):
    """distant brackets: say again the letters of the last bracket, in bits per character."""

    examples: ClassVar = ("", "--letters 3 --gap 2 7 --learner uoro --out runs/uoro")
    letters: int = 1
    """Letters in a bracket."""
    gap: tuple[int, int] = (5, 5)
    """Least and largest number of letters between two brackets."""
    alphabet: int = 10
    """Number of different letters."""

    def problem(self) -> Problem:
        """Task and network."""
        return self.problem_of(tasks.brackets(self.letters, self.gap, self.alphabet))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adding(Network):
    """adding: predict half of the input `near` steps ago minus a quarter of the one `far` steps ago."""

    examples: ClassVar = ("", "--near 10 --far 20 --learner rtrl --out runs/rtrl")
    near: int = 6
    """Age of the input that counts more."""
    far: int = 10
    """Age of the other input."""
    cell: CellName = "rnn"
    steps: int = 20_000

    def problem(self) -> Problem:
        """Task and network."""
        return self.problem_of(tasks.adding(self.near, self.far))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rotation(Network):
    """rotation: forecast a point on a circle from one coordinate; its speed changes now and then."""

    examples: ClassVar = ("", "--period 20 --learner rtrl --out runs/rtrl")
    period: int = 100
    """Mean number of steps between two changes of speed."""
    cell: CellName = "rnn"
    steps: int = 20_000

    def problem(self) -> Problem:
        """Task and network."""
        return self.problem_of(tasks.rotation(self.period))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Balance(_job.Settings):
    """influence balancing: find the weight whose influence has one sign soon and the other one late."""

    examples: ClassVar = ("", "--learner tbptt:100 --out runs/100", "--learner tbptt:200 --out runs/200")
    lanes: int = 1
    optimizer: Literal["adam", "sgd"] = "sgd"
    learning_rate: float = 1e-5
    clip: float | None = None
    steps: int = 30_000
    chunk: int = 200

    def problem(self) -> Problem:
        """Task and its own cell."""
        task = tasks.balance()
        theta = Measure("theta", lambda params: params["cell"]["theta"], 1)
        cell: Any = task.cell
        return Problem(task, cell, "a chain of 23 units", "theta", (theta,), (-1 / 6, "optimum -1/6"))


TASKS: dict[str, Any] = {
    "copy": Copy,
    "text": Text,
    "anbn": Anbn,
    "brackets": Brackets,
    "adding": Adding,
    "rotation": Rotation,
    "balance": Balance,
}


def options_for(command: type, name: str, purpose: str) -> Any:
    """The options of a command on a task, as one dataclass whose docstring is the help text."""
    task = TASKS[name]
    typed = "\n".join(
        f"  foretrace {command.__name__.lower()} {name} {words}".rstrip() for words in task.examples
    )
    made = type(command.__name__, (command, task), {"__annotations__": {}})
    made.__doc__ = f"{purpose} {task.__doc__}\n\n{command.__doc__}\n\nExamples:\n{typed}\n"
    return dataclasses.dataclass(frozen=True, kw_only=True)(made)
