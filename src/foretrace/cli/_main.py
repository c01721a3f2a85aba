"""The command `foretrace`: a table of commands, each in a module of its own, imported when called."""

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Sequence

import foretrace
from foretrace._checks import UserError, missing_extra
from foretrace.cli._output import output_may_end
from foretrace.rl.environments import ENVIRONMENTS
from foretrace.tasks import TASKS

# A command is a module here with `run(words)`; what it refuses it raises, what it does it prints.
COMMANDS = {
    "train": "train one network with one learner",
    "resume": "go on with a run that was stopped, as if nothing had happened",
    "compare": "train with several learners and seeds, side by side",
    "rl": "let an agent with a memory learn at every step of a live world",
    "learners": "list all learners and what they claim",
    "explain": "show a cell's structure, and which learners fit it",
    "noise": "measure learners on a run's own network: noise, bias and price",
    "forecast": "forecast a column of a table, or lines as they arrive",
    "watch": "show a run in a browser while it goes on",
    "data": "fetch and verify a text that the papers learn from",
    "bench": "time every learner's step beside the matrix product it stands on",
    "reproduce": "measure a claim of the papers and show it beside their figures",
}
# Commands that only print: nothing is left to do for them once nobody reads.
_LISTS = ("learners", "explain")
# Packages that come with the extra foretrace[cli].
_EXTRA = ("filelock", "matplotlib", "plotly", "rich", "tyro")
_HELP = """\
usage: foretrace {{train,compare}} {{{tasks}}} [OPTIONS]
       foretrace rl {{{worlds},gym:NAME}} [OPTIONS]
       foretrace forecast FILE|- --target COLUMN [OPTIONS]
       foretrace resume RUN
       foretrace watch RUN [--port PORT]
       foretrace data ptb --dir DIR
       foretrace learners
       foretrace noise RUN [--learners NAME,NAME ..]
       foretrace explain CELL [--hidden N] [OPTIONS]
       foretrace bench [SETTING ...] [OPTIONS]
       foretrace reproduce NAME [--scale quick|day|full] [OPTIONS]

Train recurrent networks online, with gradients that are never truncated.

{commands}
  --version   what is installed

examples:
  foretrace train copy --learner ok:16 --hidden 128 --steps 100000 --out runs/big
  foretrace train copy --learner tbptt:5 --cell gru --out runs/gru
  foretrace train text --file book.txt --valid other.txt --out runs/book
  foretrace compare copy --learner ok:8 --learner kf_rtrl --learner tbptt:5 --out runs/cmp
  foretrace rl t_maze --length 20 --learner low_rank --cell gru --out runs/maze
  foretrace bench highway-128 --out highway.json
  foretrace reproduce noise-size

All options: foretrace COMMAND --help.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    # JAX decomposes with SciPy's LAPACK. On matrices above 32 x 32 that starts threads of its own for every
    # thread of JAX, and on a busy machine they wait for each other many times as long as they work.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help"):
        lines = (f"  {name:10}  {purpose}" for name, purpose in COMMANDS.items())
        print(
            _HELP.format(tasks=",".join(TASKS), worlds=",".join(ENVIRONMENTS), commands="\n".join(lines)),
            end="",
        )
        return 0
    if words[0] == "--version":
        print(f"foretrace {foretrace.__version__}")
        return 0
    with contextlib.nullcontext() if words[0] in _LISTS else output_may_end():
        return _run(words)


def _run(words: Sequence[str]) -> int:
    """Runs a command; what it refuses becomes a sentence and an exit code."""
    try:
        return _command(words[0])(words[1:]) or 0
    except UserError as error:
        print(f"foretrace: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    except KeyboardInterrupt:
        print("foretrace: stopped by the keyboard.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone; Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _command(name: str) -> Callable[[Sequence[str]], int | None]:
    """The function of a command, whose module is imported only when it is called."""
    if name not in COMMANDS:
        raise UserError(
            f"command must be one of {', '.join(COMMANDS)}; got {name!r}; see foretrace --help."
        )
    try:
        return importlib.import_module(f"foretrace.cli.{name}").run
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in _EXTRA:
            raise
        raise missing_extra(error, "cli") from None
