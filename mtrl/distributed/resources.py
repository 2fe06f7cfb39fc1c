"""What a run needs of processors, memory and threads, computed before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mtrl import registry
from mtrl.errors import ResourceError
from mtrl.rollout import RuntimeConfig
from mtrl.tasks import TaskSet, allowed_processors

ACTOR_MEGABYTES = 160.0
"""Memory of an actor before it builds an environment. Measured on Linux: 128 MB resident with mtrl and
numpy loaded, of which 74 MB are its own; the margin covers arrays in flight. Loading torch adds
`TORCH_MEGABYTES`."""
TORCH_MEGABYTES = 200.0
"""Memory that a policy with torch adds to an actor; measured: 185 MB resident, 145 MB its own."""
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
    """All environments that the run would keep if memory sufficed."""
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
    `available_megabytes` default to this machine's; a cluster that is not joined yet is taken to have
    `config.actors`. `torch`: whether the policy loads it.
    """
    unknown = config.address and processor_count is None
    if processor_count is None:
        processor_count = (config.actors if config.address else 0) or processors()
    if available_megabytes is None:
        available_megabytes = float("inf") if unknown else memory_megabytes()
    actors = config.actors or max(processor_count, 1)
    setting, host, hosts, none = "runtime.actors", "actor", "actors", "one per processor"
    if config.kind == "local" and config.workers:
        setting, host, hosts = "runtime.workers", "worker process", "worker processes"
        none = "none but this one"
    if actors > processor_count:
        raise ResourceError(
            f"{setting}={actors} needs {actors} processors, one per {host}; {processor_count} are there. "
            f"Set {setting} to at most {processor_count}, or to 0 for {none}"
        )
    sizes = [registry.task_megabytes(task) * copies for task in tasks]
    own = actors * (ACTOR_MEGABYTES + TORCH_MEGABYTES * torch)
    most, least = actors * sum(sizes), actors * max(sizes)
    if held:
        most = least = sum(sizes)
    if own + least > available_megabytes:
        raise ResourceError(
            f"{actors} {hosts} need at least {own + least:.0f} MB of memory "
            f"({own:.0f} MB themselves, {least:.0f} MB for environments); "
            f"{available_megabytes:.0f} MB are free. Use fewer of them ({setting}), fewer copies "
            "or fewer tasks"
        )
    return ResourcePlan(actors, processor_count, own, most, least, available_megabytes)


def processors() -> int:
    """Processors this process may use: its affinity, cut to the container's quota."""
    allowed, quota = allowed_processors(), _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":
        return max(1, min(allowed, int(quota[0]) // int(quota[1])))
    return allowed


def memory_megabytes() -> float:
    """Free memory in MB: the machine's, or what the container's limit leaves; infinity if unknown."""
    free = float("inf")
    for line in _read("/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            free = int(value.split()[0]) / 1024
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current")
    if limit and used and limit != "max":
        free = min(free, (int(limit) - int(used)) / 2**20)
    return free


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
