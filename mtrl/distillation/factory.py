"""The student's distiller as an agent, built from a run's teacher."""

from __future__ import annotations

from collections.abc import Mapping

from mtrl.errors import ConfigError, UnsupportedError
from mtrl.rollout import ChunkPolicy, Extra, Policy, PolicySnapshot
from mtrl.spaces import Layout
from mtrl.tasks import TaskSet
from mtrl.training import Needs, Offline

from .config import DistillationConfig
from .same_noise import DISTILLATION_METRICS, SameNoiseDistiller
from .student import student_policy
from .teacher import ChunkTeacher


def teacher_of(policy: Policy) -> ChunkTeacher:
    """What of a policy can be distilled; raises UnsupportedError where it plans no chunks."""
    teacher = policy.teacher if isinstance(policy, ChunkPolicy) else None
    if not isinstance(teacher, ChunkTeacher):
        raise UnsupportedError(
            f"a {type(policy).__name__} is no chunk teacher: it plans no action chunks that a student could "
            "learn. Distil a policy of agent=diffusion, or leave the stage 'distill' out"
        )
    return teacher


class StudentFactory:
    """Builds distillers by same-noise regression."""

    name = "student"
    config_class = DistillationConfig
    metrics = DISTILLATION_METRICS

    def needs(self, config: DistillationConfig, tasks: TaskSet) -> Needs:
        """Demonstrated states, and a teacher."""
        return Needs(offline=Offline(), parents=("teacher",))

    def extras(self, config: DistillationConfig, layout: Layout) -> tuple[Extra, ...]:
        """Nothing is recorded beside actions."""
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
    ) -> SameNoiseDistiller:
        """A new distiller of the parent "teacher"; see `teacher_of`."""
        teacher = (parents or {}).get("teacher")
        if teacher is None:
            raise ConfigError("a student needs a teacher; name its run or artefact with teacher=")
        return SameNoiseDistiller(config, teacher_of(teacher), tasks, seed, rank=rank, ranks=ranks)

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> ChunkPolicy:
        """The student of a snapshot."""
        return student_policy(snapshot, tasks)


STUDENT = StudentFactory()
