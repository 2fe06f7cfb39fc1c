"""Processors, threads, memory, disk and real-time rights of this machine."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtrl.distributed import preflight
from mtrl.errors import ResourceError
from mtrl.rollout import RuntimeConfig
from mtrl.tasks import TaskSet

from . import Finding, broken, good, optional, warning

AMPLE_BYTES = 5_000_000_000
"""Free disk below which a longer run may not fit."""
SHARED_BYTES = 512 * 2**20
"""Shared memory that a private Ray cluster requests; with less it writes to disk."""

_REALTIME = """
import ctypes, os
try:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    print("fifo")
except (AttributeError, OSError):
    pass
if ctypes.CDLL(None).mlockall(3) == 0:
    print("lock")
"""


def check_processors(usable: int, allowed: int, present: int) -> Finding:
    """`usable` processors after affinity and the container's quota, `allowed` by affinity, of `present`."""
    if usable < allowed:
        text = f"{usable} by the container's quota, of {allowed} visible: libraries start too many threads"
        return warning("processors", text, f"export OMP_NUM_THREADS={usable}, or raise the quota")
    if usable < present:
        return good("processors", f"{usable} of {present} by this process's affinity")
    return good("processors", f"{usable}")


def check_gpu(names: Sequence[str], built_for: str | None) -> Finding:
    """`names` of the GPUs that torch sees, and the version of CUDA that it was built for, if any."""
    if names:
        return good(
            "GPU", f"{', '.join(names)}; train with device=cuda, or device=auto where there may be none"
        )
    if built_for is None:
        return optional(
            "GPU",
            "this torch is built without CUDA, so agents compute on the CPU",
            "to use a GPU: install this version of torch for its CUDA "
            "(https://pytorch.org/get-started/locally), then train with device=cuda",
        )
    return optional(
        "GPU",
        f"torch for CUDA {built_for} sees no GPU, so agents compute on the CPU",
        "where there is one: nvidia-smi lists it once its driver works, and CUDA_VISIBLE_DEVICES may hide it",
    )


def check_threads(threads: str, wait_policy: str, usable: int) -> Finding:
    """`threads` is OMP_NUM_THREADS and `wait_policy` OMP_WAIT_POLICY as this process was started."""
    if threads and not (threads.isascii() and threads.isdigit() and int(threads) > 0):
        return warning("threads", f"OMP_NUM_THREADS={threads} is no number", "unset OMP_NUM_THREADS")
    if threads and int(threads) > usable:
        return warning(
            "threads",
            f"OMP_NUM_THREADS={threads} on {usable} processors: waiting threads slow it down up to 20 times",
            f"export OMP_NUM_THREADS={usable}, or unset it",
        )
    if wait_policy.upper() == "ACTIVE":
        return warning(
            "threads", "OMP_WAIT_POLICY=ACTIVE: waiting threads occupy processors", "unset OMP_WAIT_POLICY"
        )
    return good("threads", f"OMP_NUM_THREADS={threads or '1, set by mtrl'}; the learner uses what is free")


def check_hosts(runtime: RuntimeConfig, usable: int) -> list[Finding]:
    """Too few processors for the actors or worker processes; nothing where there are enough."""
    setting, host, requested = _hosts(runtime, usable)
    if requested <= usable:
        return []
    text = f"{setting}={requested} needs {requested} processors, one per {host}; {usable} are there"
    return [broken("runtime", text, f"{setting} of at most {usable}")]


def check_memory(
    tasks: TaskSet, runtime: RuntimeConfig, copies: int, available_megabytes: float, usable: int
) -> Finding:
    """Whether the environments of a task set fit, `copies` of one task at a time in every process.

    Counts at most `usable` processes, one per processor; `check_hosts` reports the excess.
    """
    setting, host, requested = _hosts(runtime, usable)
    hosts = min(requested, max(usable, 1))
    subject = f"memory, {len(tasks)} tasks" if len(tasks) > 1 else f"memory, {tasks.names[0]}"
    free = f"{available_megabytes:.0f} MB are free"
    for count in range(hosts, 0, -1):
        with contextlib.suppress(ResourceError):
            plan = preflight(
                tasks,
                RuntimeConfig(kind="ray", actors=count),
                copies=copies,
                processor_count=max(usable, 1),
                available_megabytes=available_megabytes,
                torch=True,
            )
            break
    else:
        text = f"not even the largest task fits: {free}"
        return broken(subject, text, "evaluation.copies=1, fewer tasks, or a machine with more memory")
    if count < hosts:
        text = f"{_counted(hosts, host)} and the largest task do not fit: {free}"
        return warning(subject, text, f"{setting}={count}")
    needed = f"{plan.environment_megabytes:.0f} MB for all environments; {free}"
    if setting:
        place = f"{_counted(plan.actors, host)} on {_counted(usable, 'processor')}"
        needed = f"{place}: {plan.actor_megabytes:.0f} MB of their own, {needed}"
    if plan.cache_megabytes == float("inf"):
        return good(subject, needed)
    if runtime.kind == "ray":
        text = "they do not fit at once, so environments are freed and built again, which takes time"
        remedy = (f"{setting} below {hosts}, or " if hosts > 1 else "") + "fewer tasks"
    else:
        # only Ray actors free environments
        text = "they do not fit at once, and none is freed before the end"
        remedy = "runtime=ray runtime.actors=1, which frees and builds them again, or fewer tasks"
    if copies > 1:
        remedy = f"evaluation.copies below {copies}, {remedy}"
    return warning(subject, f"{needed}: {text}", remedy)


def _hosts(runtime: RuntimeConfig, usable: int) -> tuple[str, str, int]:
    """(setting of the number of environment processes, "" for this one alone, word for one, number)."""
    if runtime.kind == "ray":
        return "runtime.actors", "actor", runtime.actors or max(usable, 1)
    if runtime.workers:
        return "runtime.workers", "worker process", runtime.workers
    return "", "process", 1


def _counted(count: int, word: str) -> str:
    plural = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{count} {word if count == 1 else plural}"


@dataclass(frozen=True)
class Folder:
    """Write access and free space of a folder."""

    path: str
    error: str
    """The reason why it cannot be written to, or ""."""
    free_bytes: int


def check_folder(purpose: str, folder: Folder, remedy: str) -> Finding:
    """Write access and free space; `remedy` is the way to choose another folder."""
    if folder.error:
        return broken(purpose, f"cannot write to {folder.path}: {folder.error}", remedy)
    text = f"{folder.path}: {folder.free_bytes / 1e9:.1f} GB free"
    if folder.free_bytes < AMPLE_BYTES:
        return warning(purpose, text, f"free some space, or {remedy}")
    return good(purpose, text)


def check_shared_memory(size_bytes: int | None) -> Finding:
    """`size_bytes` of /dev/shm, where Ray keeps its objects; None where there is none."""
    if size_bytes is None:
        return warning(
            "shared memory", "there is no /dev/shm: Ray writes to disk", "mount -t tmpfs tmpfs /dev/shm"
        )
    text = f"/dev/shm holds {size_bytes / 1e9:.1f} GB"
    if size_bytes < SHARED_BYTES:
        return warning(
            "shared memory",
            f"{text}; Ray's object store takes {SHARED_BYTES / 1e9:.1f} GB and goes to disk",
            "docker run --shm-size=1g, or mount -o remount,size=1g /dev/shm",
        )
    return good("shared memory", text)


def check_realtime(fifo: bool, lock: bool) -> Finding:
    """Whether this user may take a real-time priority (SCHED_FIFO) and lock memory, for `mtrl deploy`."""
    missing = [name for name, has in (("real-time priority", fifo), ("locked memory", lock)) if not has]
    if not missing:
        return good("real time", "SCHED_FIFO and mlockall are allowed")
    return optional(
        "real time",
        f"no right to {' and '.join(missing)}: a controller may miss deadlines on a busy machine",
        "in /etc/security/limits.conf: `@realtime - rtprio 99` and `@realtime - memlock unlimited`; "
        "in a container: --cap-add=SYS_NICE --ulimit rtprio=99 --ulimit memlock=-1",
    )


def inspect_folder(path: Path) -> Folder:
    """Tries to write a file to a folder, or to the nearest folder above it that exists."""
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".mtrl-doctor-") as file:
            file.write(b"\0")
        error = ""
    except OSError as problem:
        error = problem.strerror or str(problem)
    return Folder(str(path), error, shutil.disk_usage(existing).free)


def shared_memory_bytes() -> int | None:
    """Size of /dev/shm."""
    shared = Path("/dev/shm")
    return shutil.disk_usage(shared).total if shared.is_dir() else None


def realtime_rights() -> tuple[bool, bool]:
    """(real-time priority, locked memory), each tried in a process that ends at once."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _REALTIME], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False, False
    words = done.stdout.split()
    return "fifo" in words, "lock" in words
