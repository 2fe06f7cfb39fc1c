"""What a run will need, found out before it starts: processors, memory, threads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mtrl import registry
from mtrl.errors import ResourceError
from mtrl.rollout import RuntimeConfig
from mtrl.tasks import TaskSet

ACTOR_MEGABYTES = 160.0
"""Memory of an actor before it builds an environment. Measured on Linux: 128 MB resident with mtrl and
numpy loaded, of which 74 MB are its own; the margin covers arrays in flight. Loading torch adds
`TORCH_MEGABYTES`."""
TORCH_MEGABYTES = 200.0
"""What a policy that needs torch adds to an actor; measured: 185 MB resident, 145 MB its own."""
OBJECT_STORE_MEGABYTES = 512
"""Ray's shared memory in a private cluster; results wait there until the driver takes them."""


@dataclass(frozen=True)
class ResourcePlan:
    """What the actors of a run need, and what there is."""

    actors: int
    """Rollout actors, one processor each."""
    processors: int
    """Processors that may be used."""
    actor_megabytes: float
    """All actors together, before they build environments."""
    environment_megabytes: float
    """All environments that the run would like to keep."""
    least_megabytes: float
    """Environments that must be held at once: every actor at its largest task."""
    available_megabytes: float
    """Free memory; infinity where it is not known."""

    @property
    def cache_megabytes(self) -> float:
        """Environments that each actor may keep; beyond that it frees the least recently used task."""
        if self.actor_megabytes + self.environment_megabytes <= self.available_megabytes:
            return float("inf")
        return (self.available_megabytes - self.actor_megabytes) / self.actors

    def __str__(self) -> str:
        kept = self.cache_megabytes
        fits = "" if kept == float("inf") else f", of which each actor may hold {kept:.0f} MB at a time"
        return (
            f"{self.actors} actors on {self.processors} processors; "
            f"{self.actor_megabytes:.0f} MB for actors, {self.environment_megabytes:.0f} MB for environments"
            f"{fits}; {self.available_megabytes:.0f} MB free"
        )


def preflight(
    tasks: TaskSet,
    config: RuntimeConfig,
    *,
    copies: int = 1,
    held: bool = False,
    processor_count: int | None = None,
    available_megabytes: float | None = None,
    torch: bool = False,
) -> ResourcePlan:
    """The plan for jobs, any of which may run on any actor; raises ResourceError when it cannot work.

    `copies` is the largest number of environments side by side in one job. `held` plans continuous collection
    instead: so many copies of each task, open on one actor or another all the time. `processor_count` and
    `available_megabytes` default to this machine's; of a cluster that is not joined yet, what
    `config.actors` asks for is taken to be there. `torch` says whether the policy loads it.
    """
    unknown = config.address and processor_count is None
    if processor_count is None:
        processor_count = (config.actors if config.address else 0) or processors()
    if available_megabytes is None:
        available_megabytes = float("inf") if unknown else memory_megabytes()
    actors = config.actors or max(processor_count, 1)
    setting, host, nought = _words_for(config)
    if actors > processor_count:
        raise ResourceError(
            f"{setting}={actors} needs {actors} processors, one per {host}; {processor_count} are there. "
            f"Set {setting} to at most {processor_count}, or to 0 for {nought}"
        )
    sizes = [registry.task_megabytes(task) * copies for task in tasks]
    own = actors * (ACTOR_MEGABYTES + TORCH_MEGABYTES * torch)
    most, least = actors * sum(sizes), actors * max(sizes)
    if held:
        most = least = sum(sizes)
    if own + least > available_megabytes:
        hosts = f"{host}es" if host.endswith("s") else f"{host}s"
        raise ResourceError(
            f"{actors} {hosts} need at least {own + least:.0f} MB of memory "
            f"({own:.0f} MB themselves, {least:.0f} MB for environments); "
            f"{available_megabytes:.0f} MB are free. Use fewer of them ({setting}), fewer copies "
            "or fewer tasks"
        )
    return ResourcePlan(actors, processor_count, own, most, least, available_megabytes)


def thread_budget(actors: int, cores: int | None = None) -> int:
    """Threads for the learner when each actor keeps one core busy; at least 1.

    Threads beyond the cores cost far more than they bring: two OpenMP threads on busy cores took a
    learner from 157 to 7 updates a second.
    """
    return max(1, (processors() if cores is None else cores) - actors)


def processors() -> int:
    """Processors this process may use: its affinity, cut to the container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _words(Path("/sys/fs/cgroup/cpu.max"))
    if len(quota) == 2 and quota[0] != "max":
        return max(1, min(allowed, int(quota[0]) // int(quota[1])))
    return allowed


def memory_megabytes() -> float:
    """Free memory in MB: the machine's, or what the container's limit leaves; infinity if unknown."""
    free = float("inf")
    for line in _lines(Path("/proc/meminfo")):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            free = int(value.split()[0]) / 1024
    limit, used = _words(Path("/sys/fs/cgroup/memory.max")), _words(Path("/sys/fs/cgroup/memory.current"))
    if limit and used and limit[0] != "max":
        free = min(free, (int(limit[0]) - int(used[0])) / 2**20)
    return free


def _words_for(config: RuntimeConfig) -> tuple[str, str, str]:
    """The setting that says how many there are, what it counts, and what 0 means."""
    if config.kind == "local" and config.workers:
        return "runtime.workers", "worker process", "none but this one"
    return "runtime.actors", "actor", "one per processor"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path)[:1] for word in line.split()]
