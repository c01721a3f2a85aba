"""Many processes as one job, by JAX's own runtime: joining it, and agreeing before anything is written."""

import json
import os
import re
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from foretrace._checks import UserError, checked_path
from foretrace.runs import _together

# What JAX raises where another process of the job is gone, in the words of its transports.
_GONE = re.compile(
    r"gloo|nccl|connection (reset|closed|refused)|socket closed|unavailable|heartbeat|barrier|coordination",
    re.IGNORECASE,
)


def join(coordinator: str | None, processes: int | None, process: int | None, timeout: int) -> None:
    """Joins a job of many processes; call it before anything else of JAX. Does nothing without arguments.

    Args:
        coordinator: HOST:PORT where process 0 listens, or `auto`: as JAX finds it, the number of processes
            and this one's from Slurm, Open MPI or Kubernetes.
        processes: how many there are.
        process: the number of this one, from 0.
        timeout: seconds to wait for the others.

    Raises:
        UserError: an argument is missing or out of range. If the others do not come in time, the process
            ends with one sentence and exit code 2, since JAX cannot give up waiting.
    """
    if coordinator is None:
        if processes is not None or process is not None:
            raise UserError(
                "coordinator must be given with processes and process; got none; write HOST:PORT of "
                "process 0, or auto."
            )
        return
    if coordinator == "auto":
        arguments = {"coordinator_address": None, "num_processes": processes, "process_id": process}
    else:
        if not re.fullmatch(r"[^:\s]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}", coordinator):
            raise UserError(
                f"coordinator must be HOST:PORT or auto; got {coordinator!r}; write host:12345."
            )
        if processes is None or process is None or processes < 1 or not 0 <= process < processes:
            raise UserError(
                "process must be an int from 0 to processes - 1; got "
                f"process={process}, processes={processes}; give both."
            )
        arguments = {
            "coordinator_address": coordinator,
            "num_processes": processes,
            "process_id": process,
        }
    if timeout < 1:
        raise UserError(f"coordinator_timeout must be an int >= 1; got {timeout}; 60 is the default.")
    # The runtime aborts the process, with a stack of C++, where the time is up.
    watchdog = threading.Timer(timeout, _give_up, (coordinator, timeout))
    watchdog.daemon = True
    watchdog.start()
    try:
        jax.distributed.initialize(
            **arguments, initialization_timeout=timeout + 60, heartbeat_timeout_seconds=60
        )
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise UserError(
            f"coordinator must be where a job can be joined; got {coordinator!r}: {reason}; give "
            "HOST:PORT, processes and process."
        ) from error
    finally:
        watchdog.cancel()


def _give_up(coordinator: str, timeout: int) -> None:
    print(
        f"foretrace: coordinator must answer, and all processes come, within {timeout} s; got no answer at "
        f"{coordinator!r}; start them all, or give a longer --coordinator-timeout.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)


def agree(config: Mapping[str, Any]) -> None:
    """Raises UserError in every process unless all have the same configuration and versions."""
    if _together.count() == 1:
        return
    # Their own numbers differ, the words that give them, and perhaps the name of a shared folder.
    own = "process", "command", "out"
    mine = [
        f"{name} {json.dumps(value, sort_keys=True)}" for name, value in config.items() if name not in own
    ]
    answers = _together.gathered("\n".join(mine))
    first = answers[0].split("\n")
    for number, answer in enumerate(answers):
        differ = [line for line in answer.split("\n") if line not in first]
        if answer != answers[0]:
            lost = ", ".join(differ) or "fewer options"
            raise UserError(
                f"processes must have the options and versions of process 0; got {lost} in process "
                f"{number}; start all with the same words."
            )


def check_shared(out: Path) -> None:
    """Raises UserError in every process unless all see one folder, before there is a run in it."""
    if _together.count() == 1:
        return
    token = _together.gathered(f".foretrace-{uuid.uuid4().hex}")[0]
    folder = out.absolute()
    while not folder.exists():
        folder = folder.parent
    first = _together.is_first()

    def write():
        if first:
            with checked_path("out", out, "a folder that can be written", "choose another folder"):
                (folder / token).touch()

    _together.refuse_together(write)
    try:
        _together.check_shared(folder / token, True)
    finally:
        if first:
            (folder / token).unlink(missing_ok=True)


@contextmanager
def ends_with_the_others() -> Iterator[None]:
    """Where another process of the job is gone, ends this one with one sentence and exit code 1.

    At once, since JAX would wait for the other at the exit, and then abort.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if _together.count() == 1 or isinstance(error, UserError) or not _GONE.search(str(error)):
            raise
        print(
            "foretrace: all processes of a job must live; got one that ended; the newest checkpoint is "
            "whole: start all of them again, with --resume.",
            file=sys.stderr,
            flush=True,
        )
        sys.stdout.flush()
        os._exit(1)
