"""What every factory of a distiller shares: the teacher among the parents, and the student as the policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Generic, TypeVar

from mtrl.errors import ConfigError
from mtrl.rollout import ChunkPolicy, Extra, Policy, PolicySnapshot
from mtrl.spaces import Layout
from mtrl.tasks import TaskSet, require_continuous_states
from mtrl.training import Metrics, Needs, Offline

from .config import DistillationConfig
from .pixel_student import pixel_student_policy
from .student import student_from

Made = TypeVar("Made")
"""The distiller."""


class DistillerFactory(ABC, Generic[Made]):
    """An entry point of the group mtrl.distillers; it learns from demonstrations unless `needs` says else."""

    name: ClassVar[str]
    metrics: ClassVar[Metrics]
    config_class = DistillationConfig
    takes_settings: ClassVar[bool] = False
    """Whether it reads `distillation.settings`."""

    def needs(self, config: DistillationConfig, tasks: TaskSet) -> Needs:
        """Demonstrations, and a teacher; raises UnsupportedError for pixels and discrete actions."""
        require_continuous_states(tasks, "the student", "Distil with distillation.method=dagger")
        return Needs(offline=Offline(), parents=("teacher",))

    def extras(self, config: DistillationConfig, layout: Layout) -> tuple[Extra, ...]:
        """None."""
        return ()

    def build(
        self,
        config: DistillationConfig,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        parents: Mapping[str, Policy] | None = None,
    ) -> Made:
        """A new distiller of the parent "teacher"; raises ConfigError without one, and for settings that are
        not read.
        """
        teacher = (parents or {}).get("teacher")
        if teacher is None:
            raise ConfigError("a student needs a teacher; name its run or artefact with teacher=")
        if config.settings and not self.takes_settings:
            raise ConfigError(
                f"distillation.settings: {self.name} takes none; got {', '.join(config.settings)}"
            )
        return self.distiller(config, teacher, tasks, seed, rank=rank, ranks=ranks)

    @abstractmethod
    def distiller(
        self, config: DistillationConfig, teacher: Policy, tasks: TaskSet, seed: int, *, rank: int, ranks: int
    ) -> Made:
        """The distiller of one rank; raises what it cannot distil."""

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> Policy:
        """The student of a snapshot."""
        return student_policy(snapshot, tasks)


def student_policy(snapshot: PolicySnapshot, tasks: TaskSet) -> Policy:
    """The policy of a student's snapshot; the entry point `student` of the group mtrl.policies."""
    if tasks.layout.pixels_shape is not None:
        return pixel_student_policy(snapshot, tasks)
    student = student_from(snapshot, tasks)
    return ChunkPolicy(student, student.form.execution, snapshot.version)
