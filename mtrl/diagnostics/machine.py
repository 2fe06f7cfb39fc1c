"""Processors, threads, memory, disk and real-time rights of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mtrl.distributed import ResourcePlan, preflight
from mtrl.errors import ResourceError
from mtrl.rollout import RuntimeConfig
from mtrl.tasks import TaskSet

from .finding import Finding, broken, good, optional, warning

ROOMY_BYTES = 5_000_000_000
"""Free disk below which a longer run may not fit."""
SHARED_BYTES = 512 * 2**20
"""Shared memory that a private Ray cluster asks for; with less it writes to disk."""

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
        text = f"{usable} by the container's quota of {allowed} in sight: libraries start too many threads"
        return warning("processors", text, f"export OMP_NUM_THREADS={usable}, or raise the quota")
    if usable < present:
        return good("processors", f"{usable} of {present} by this process's affinity")
    return good("processors", f"{usable}")


def check_threads(threads: str, wait_policy: str, usable: int) -> Finding:
    """`threads` is OMP_NUM_THREADS and `wait_policy` OMP_WAIT_POLICY as this process was started."""
    if threads and not (threads.isascii() and threads.isdigit() and int(threads) > 0):
        return warning("threads", f"OMP_NUM_THREADS={threads} is no number", "unset OMP_NUM_THREADS")
    if threads and int(threads) > usable:
        return warning(
            "threads",
            f"OMP_NUM_THREADS={threads} on {usable} processors: idle threads that wait cost up to 20 times",
            f"export OMP_NUM_THREADS={usable}, or unset it",
        )
    if wait_policy.upper() == "ACTIVE":
        return warning(
            "threads", "OMP_WAIT_POLICY=ACTIVE: waiting threads take processors", "unset OMP_WAIT_POLICY"
        )
    return good("threads", f"OMP_NUM_THREADS={threads or '1, set by mtrl'}; the learner takes what is free")


def check_hosts(runtime: RuntimeConfig, usable: int) -> list[Finding]:
    """Too few processors for the actors or worker processes; nothing where there are enough."""
    setting, host, wanted = _hosts(runtime, usable)
    if wanted <= usable:
        return []
    text = f"{setting}={wanted} needs {wanted} processors, one per {host}; {usable} are there"
    return [broken("runtime", text, f"{setting} of at most {usable}")]


def check_memory(
    tasks: TaskSet, runtime: RuntimeConfig, copies: int, available_megabytes: float, usable: int
) -> Finding:
    """Whether the environments of a task set fit, `copies` of one task at a time in every process.

    Of more processes than there are `usable` processors, which `check_hosts` tells, only so many count.
    """
    setting, host, wanted = _hosts(runtime, usable)

    def plan(hosts: int) -> ResourcePlan:
        return preflight(
            tasks,
            RuntimeConfig(kind="ray", actors=hosts),
            copies=copies,
            processor_count=max(usable, 1),
            available_megabytes=available_megabytes,
            torch=True,
        )

    def told(found: ResourcePlan) -> str:
        needs = (
            f"{_counted(found.actors, host)} on {_counted(usable, 'processor')}: "
            f"{found.actor_megabytes:.0f} MB of their own, "
            if setting
            else ""
        )
        return (
            f"{needs}{found.environment_megabytes:.0f} MB for all environments; "
            f"{available_megabytes:.0f} MB are free"
        )

    subject = f"memory, {len(tasks)} tasks" if len(tasks) > 1 else f"memory, {tasks.names[0]}"
    hosts = min(wanted, max(usable, 1))
    fewer = f"{setting} below {hosts}, or " if hosts > 1 else ""
    try:
        found = plan(hosts)
    except ResourceError:
        for less in range(hosts - 1, 0, -1):
            with contextlib.suppress(ResourceError):
                found = plan(less)
                text = f"{_counted(hosts, host)} and the largest task do not fit: "
                return warning(subject, text + f"{available_megabytes:.0f} MB are free", f"{setting}={less}")
        text = f"not even the largest task fits: {available_megabytes:.0f} MB are free"
        return broken(subject, text, "evaluation.copies=1, fewer tasks, or a machine with more memory")
    if found.cache_megabytes == float("inf"):
        return good(subject, told(found))
    if runtime.kind == "ray":
        text = "they do not fit at once, so environments are freed and built again, which takes time"
        mend = f"{fewer}fewer tasks"
    else:
        # only actors make room: elsewhere what was built stays
        text = "they do not fit at once, and none is freed before the end"
        mend = "runtime=ray runtime.actors=1, which frees and builds them again, or fewer tasks"
    if copies > 1:
        mend = f"evaluation.copies below {copies}, {mend}"
    return warning(subject, f"{told(found)}: {text}", mend)


def _hosts(runtime: RuntimeConfig, usable: int) -> tuple[str, str, int]:
    """The setting that says how many processes play ("" for this one alone), its word for one, how many."""
    if runtime.kind == "ray":
        return "runtime.actors", "actor", runtime.actors or max(usable, 1)
    if runtime.workers:
        return "runtime.workers", "worker process", runtime.workers
    return "", "process", 1


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}{'es' if word.endswith('s') else 's'}"


@dataclass(frozen=True)
class Place:
    """What is known of a folder."""

    path: str
    error: str
    """Why nothing can be written there; "" when it can."""
    free_bytes: int


def check_place(purpose: str, place: Place, mend: str) -> Finding:
    """Write access and room; `mend` says how to choose another folder."""
    if place.error:
        return broken(purpose, f"cannot write to {place.path}: {place.error}", mend)
    text = f"{place.path}: {place.free_bytes / 1e9:.1f} GB free"
    if place.free_bytes < ROOMY_BYTES:
        return warning(purpose, text, f"free some space, or {mend}")
    return good(purpose, text)


def check_shared_memory(size_bytes: int | None) -> Finding:
    """`size_bytes` of /dev/shm, where Ray keeps what actors send; None where there is none."""
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


def look_at(path: Path) -> Place:
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
    return Place(str(path), error, shutil.disk_usage(existing).free)


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


def allowed_processors() -> int:
    """Processors of this process's affinity, before any quota."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_settings(environment: Mapping[str, str]) -> tuple[str, str]:
    """OMP_NUM_THREADS and OMP_WAIT_POLICY."""
    return environment.get("OMP_NUM_THREADS", ""), environment.get("OMP_WAIT_POLICY", "")
