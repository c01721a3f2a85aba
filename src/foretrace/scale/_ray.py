"""Many runs, or parts of a fleet, as tasks of Ray, each in a folder of its own from which it goes on."""

import contextlib
import os
import platform
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from foretrace._checks import UserError, checked_path, import_extra
from foretrace.runs._config import versions

# As often as this a task whose process ends, however it ends, is started again.
_RETRIES = 20


class Part(NamedTuple):
    """One task.

    Attributes:
        name: for people.
        folder: where it keeps what it goes on from; its process may use it alone.
        arguments: of the function beside the folder, which can be pickled.
    """

    name: str
    folder: Path
    arguments: tuple[Any, ...]


def check_engine(engine: str | None) -> None:
    """Raises ValueError unless an engine is None, `ray` or `ray://HOST:PORT`."""
    if engine is not None and engine != "ray" and not engine.startswith("ray://"):
        raise UserError(
            f"engine must be ray, or ray://HOST:PORT for a cluster elsewhere; got {engine!r}; leave it out "
            "to run in this process."
        )


@contextlib.contextmanager
def connected(engine: str, shared: Path) -> Iterator[Any]:
    """Ray, connected to a cluster whose every machine sees a folder and has this version of foretrace.

    Args:
        engine: `ray` for the cluster that this machine belongs to, or a new one of its own cores if there
            is none; `ray://HOST:PORT` for one elsewhere.
        shared: the folder, which need not exist yet.

    Raises:
        UserError: Ray is not installed, the cluster does not answer, or a machine does not see the folder
            or has other versions.
    """
    check_engine(engine)
    ray = import_extra("ray", "ray")
    address = None if engine == "ray" else engine
    try:
        with warnings.catch_warnings():
            # JAX warns of every fork; those of Ray become another program at once.
            warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
            warnings.filterwarnings("ignore", message="Ray Client connection timed out")  # raised below
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"engine must be a cluster of Ray that answers; got {engine!r}: {reason}; start one with "
            "ray start --head."
        ) from error
    try:
        _check_machines(ray, shared)
        yield ray
    finally:
        ray.shutdown()


def run_parts(
    ray: Any,
    function: Callable[..., Any],
    parts: Sequence[Part],
    show: Callable[[Part], None],
    *,
    every: float = 1.0,
) -> list[Any]:
    """Runs `function(folder, *arguments)` for every part, as many at a time as there are cores.

    A part whose process ends before it is done is started again, and finds its folder as it left it.

    Args:
        ray: see `connected`.
        function: of a module, so that workers can import it; it goes on from what is in the folder.
        parts: what to run.
        show: called again and again with each part that is not done, and once when it is.
        every: seconds between two rounds of `show`.

    Returns:
        The results, in the order of the parts.

    Raises:
        UserError: a part raised one, or its process ended again and again.
    """
    task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_run)
    running = {
        task.remote(function, os.getcwd(), str(part.folder.absolute()), part.arguments): i
        for i, part in enumerate(parts)
    }
    results: list[Any] = [None] * len(parts)
    while running:
        done, _ = ray.wait(list(running), timeout=every)
        for reference in done:
            number = running.pop(reference)
            results[number] = _result(ray, reference, parts[number])
            show(parts[number])
        for number in running.values():
            show(parts[number])
    return results


def cores(ray: Any) -> int:
    """Cores of all machines of the cluster, at least one."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _run(function: Callable[..., Any], place: str, folder: str, arguments: tuple[Any, ...]) -> Any:
    with contextlib.suppress(OSError):  # names of files that are read are those of the caller
        os.chdir(place)
    # Ray starts one process of a part at a time: a lock that is still there is that of one that ended.
    Path(folder, "lock").unlink(missing_ok=True)
    return function(Path(folder), *arguments)


def _result(ray: Any, reference: Any, part: Part) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise UserError(
            f"a worker must live long enough to reach a checkpoint; got {part.name} ended {_RETRIES + 1} "
            f"times ({type(error).__name__}); give it memory, and go on with --resume."
        ) from error


def _check_machines(ray: Any, shared: Path) -> None:
    """Raises UserError unless every machine sees a file that is written here, and has these versions."""
    folder = shared.absolute()
    while not folder.exists():
        folder = folder.parent
    token = folder / f".foretrace-{uuid.uuid4().hex}"
    with checked_path("out", shared, "a folder that can be written", "choose another folder"):
        token.touch()
    try:
        affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        probe = ray.remote(num_cpus=0)(_probe)
        alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        answers = ray.get(
            [probe.options(scheduling_strategy=affinity(n, soft=False)).remote(str(token)) for n in alive]
        )
    finally:
        token.unlink(missing_ok=True)
    here = {name: version for name, version in versions().items() if name != "device"}
    for host, sees, there in answers:
        if not sees:
            raise UserError(
                f"out must be a folder that every machine of the cluster sees; got {str(shared)!r}, which "
                f"{host} does not; give one on a shared file system."
            )
        differ = [f"{name} {there[name]}" for name, version in here.items() if there[name] != version]
        if differ:
            raise UserError(
                f"machines must have the versions of this one; got {', '.join(differ)} on {host}; install "
                "the same."
            )


def _probe(token: str) -> tuple[str, bool, dict[str, str]]:
    return platform.node(), Path(token).exists(), versions()
