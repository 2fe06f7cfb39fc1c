"""Checks before a run starts: its resources, and whether its settings fit each other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mtrl.data import dataset_id_of, read_dataset
from mtrl.diagnostics.machine import inspect_folder
from mtrl.errors import ResourceError
from mtrl.rollout import PolicySnapshot
from mtrl.tasks import TaskSet
from mtrl.training import AgentFactory, KeepsReplay, Needs

from .config import Config, agent_of, run_name, task_set_of
from .demonstrations import demonstrations_root, needs_demonstrations, require_demonstrable
from .parents import parents_of

DEMONSTRATION_BYTES = 60_000
"""Disk of one kept demonstration, a generous mean."""

KEPT_CHECKPOINTS = 4
"""Checkpoints on disk at once, the one being written included."""


@dataclass(frozen=True)
class Plan:
    """A run before it starts; what several stages check is computed once."""

    config: Config
    tasks: TaskSet
    run: Path
    """The run's folder, which need not exist."""
    name: str
    """Name of the agent."""
    factory: AgentFactory
    settings: Any
    """The agent's own dataclass."""
    needs: Needs

    @classmethod
    def of(cls, config: Config) -> Plan:
        """The plan of a configuration; raises MtrlError for tasks or an agent that do not exist."""
        tasks = task_set_of(config)
        name, factory, settings = agent_of(config)
        run = Path(config.output) / run_name(config)
        return cls(config, tasks, run, name, factory, settings, factory.needs(settings, tasks))

    @cached_property
    def snapshot(self) -> PolicySnapshot:
        """The agent's policy before training. Builds the learner, so that a setting that it refuses is
        refused before anything is collected.
        """
        parents = parents_of(self.config, self.tasks, self.needs.parents)
        learner = self.factory.build(self.settings, self.tasks, self.config.seed, parents=parents)
        return learner.snapshot("export")

    @property
    def replay_bytes(self) -> int:
        """Memory of the agent's replay."""
        if not isinstance(self.factory, KeepsReplay):
            return 0
        return self.factory.replay_bytes(self.settings, self.tasks)

    @property
    def demonstration_bytes(self) -> int:
        """Disk of the demonstrations that the run collects."""
        if self.config.data or not needs_demonstrations(self.config, self.tasks, self.needs):
            return 0
        return DEMONSTRATION_BYTES * self.config.demonstrations.episodes * len(self.tasks)

    def checkpoint_bytes(self, replay: int = 0) -> int:
        """Disk of a learner's checkpoints: weights, average, two optimiser moments, and the replay."""
        weights = sum(tensor.nbytes for tensor in self.snapshot.tensors.values())
        return KEPT_CHECKPOINTS * (4 * weights + replay)

    def require_demonstrations(self) -> None:
        """Raises MtrlError when demonstrations are needed that are neither there nor can be collected, or
        when those of `data` cannot be read.
        """
        if needs_demonstrations(self.config, self.tasks, self.needs):
            require_demonstrable(self.config, self.tasks, self.run)
            for task in self.tasks if self.config.data else ():
                read_dataset(demonstrations_root(self.config, self.run), dataset_id_of(task), task)


def require_writable(folder: Path) -> None:
    """Raises ResourceError when nothing can be written to `folder`, which need not exist yet."""
    found = inspect_folder(folder)
    if found.error:
        raise ResourceError(
            f"cannot write to {folder}: {found.error}; check the path, or choose another place"
        )
