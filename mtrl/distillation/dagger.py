"""Distillation by DAgger (Ross, Gordon and Bagnell 2011, arXiv 1011.0686).

The teacher plays first, then the student does. In every state that one of them came to, the teacher is
asked what it would do, and the student learns that from all states so far: it meets its own mistakes, and
what to do about them. This is algorithm 3.1 with beta_1 = 1 and beta_i = 0 from then on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from mtrl.data import merged_moments
from mtrl.errors import ConfigError, DivergenceError
from mtrl.nn import log_choices
from mtrl.reducer import Reducer
from mtrl.rollout import EpisodeGroup, Execution, Fragment, Policy, PolicySnapshot
from mtrl.spaces import RunningMoments
from mtrl.tasks import TaskSet
from mtrl.training import Datasets, Metric, Metrics, Needs, State, Stream, Use

from .averaged_learner import AveragedLearner
from .config import DistillationConfig
from .factory import DistillerFactory
from .labels import Labelled, TeacherLabels
from .pixel_student import PixelStudent
from .student import Student, StudentForm
from .teacher import FirstStep

_UPDATE = "mtrl.distillation.dagger:Dagger.update"
METRICS: Metrics = {
    "loss": Metric(
        "mean over the batch of the squared error to the teacher's continuous action, mean over the task's "
        "dimensions, or of -ln of the probability of its discrete choice",
        "1",
        _UPDATE,
    ),
    "gradient_norm": Metric(
        "Euclidean norm of the gradient of loss over all weights, before clipping to 1", "1", _UPDATE
    ),
    "learning_rate": Metric("learning_rate / 2 (1 + cos(pi n / updates)) at update n", "1", _UPDATE),
}
"""What `Dagger.update` returns."""


def imitation_loss(raw: torch.Tensor, label: torch.Tensor, mask: torch.Tensor, choices: int) -> torch.Tensor:
    """Loss [N] of outputs `raw` [N, W] before clipping, whose last `choices` columns are logits, against
    labels [N, W]; `mask` [N, W] is 1 in the columns of the row's task, which are all of one kind.

    Squared error, mean over the dimensions of a continuous task; cross-entropy of a discrete one.
    """
    width = raw.shape[1] - choices
    real, legal = mask[:, :width], mask[:, width:]
    squared = ((raw[:, :width] - label[:, :width]) ** 2 * real).sum(1) / real.sum(1).clamp(min=1.0)
    if not choices:
        return squared
    # where a choice is not legal its label is 0; a continuous task has none
    return squared - (label[:, width:] * log_choices(raw[:, width:], legal)).sum(1)


class Dagger(AveragedLearner[Student | PixelStudent]):
    """Trains a student of single decisions in the states that it comes to, labelled by its teacher."""

    NAME, KEY, STREAM = "the student", "student", 3

    def __init__(
        self,
        config: DistillationConfig,
        teacher: Policy,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """Raises ConfigError where ranks cannot share the batch, SpaceError for images that the student's
        convolutions cannot read.
        """
        if config.batch_size % ranks:
            raise ConfigError(
                f"distillation.batch_size={config.batch_size} is what all ranks take together; expected a "
                f"multiple of their number, {ranks}"
            )
        self._config, self._ranks, self._layout = config, ranks, tasks.layout
        form = StudentForm(
            replace(config.network, history=1, chunk=1),
            Execution(steps=1, noise="zero"),
            0,
            FirstStep(),
            config.pixels,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            student = (Student if tasks.layout.pixels_shape is None else PixelStudent)(form, tasks.layout)
        super().__init__(
            student,
            seed,
            rank=rank,
            learning_rate=config.learning_rate,
            weight_decay=0.0,
            ema_decay=config.ema_decay,
            gradient_clip=1.0,
        )
        self._labels = TeacherLabels(teacher, tasks.layout, seed)
        self._data = Labelled(config.steps, tasks.layout)
        self._moments = RunningMoments(tasks.layout.task_count, tasks.layout.state_size)
        self._measured_at, self._ready = 0, False

    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        """The averaged student as data."""
        return self._average.snapshot(self.updates)

    def ingest(self, data: Fragment | EpisodeGroup | Datasets) -> None:
        """Asks the teacher in every state of a fragment; raises ConfigError for anything else."""
        if not isinstance(data, Fragment):
            raise ConfigError(f"{self.NAME} learns from the states that it comes to (Fragment)")
        labels = self._labels.of(data)
        labels = labels.reshape(-1, labels.shape[-1])
        seen = {
            bucket: values[:-1].reshape(len(labels), *values.shape[2:])
            for bucket, values in data.observations.items()
        }
        self._data.add(data.task_index, seen, labels)
        if "state" in seen:
            self._moments.update(data.task_index, np.asarray(seen["state"], dtype=np.float32))

    def due(self, steps: int, reducer: Reducer) -> int:
        """As large a share of `updates` as `steps` are of the steps in all."""
        if steps != self._measured_at:
            self._measured_at = steps
            self._ready = bool(reducer.agree(float(len(self._data) > 0), "min"))
            if self._ready:
                # moments of all states so far: each round moves them less
                moments = merged_moments(self._moments, reducer)[0].freeze(self._layout.state_mask)
                for student in (self._network, self._average):
                    student.set_moments(moments)
        granted = min(self._config.updates, self._config.updates * steps // self._config.steps)
        return max(0, granted - self.updates) if self._ready else 0

    def update(self, reducer: Reducer) -> Mapping[str, float]:
        """One step on states drawn evenly from all so far."""

        def make() -> dict[str, torch.Tensor]:
            loss = self._loss() / self._ranks
            if reducer.size > 1 and not torch.isfinite(loss):
                raise DivergenceError(self.NAME, self.updates + 1, f"loss {loss.item()}")
            return self._backward(loss) | {"/loss": loss.detach()}

        found = dict(reducer.sums(make, self._like(loss=())))
        cosine = 0.5 * (1 + math.cos(math.pi * self.updates / self._config.updates))
        return self._step(found, float(found.pop("/loss")), self._config.learning_rate * cosine)

    def local_state(self) -> State:
        """Labelled states, their moments and random states."""
        return {
            **super().local_state(),
            "data": self._data.state_dict(),
            "moments": self._moments.state_dict(),
            "measured_at": self._measured_at,
            "ready": self._ready,
        }

    def restore(self, shared: State, local: State | None) -> None:
        """Restores both; without `local` the states are collected again."""
        super().restore(shared, local)
        if local is not None:
            self._data.load_state_dict(local["data"])
            self._moments.load_state_dict(local["moments"])
            self._measured_at, self._ready = int(local["measured_at"]), bool(local["ready"])

    def _loss(self) -> torch.Tensor:
        """The mean loss over this rank's batch."""
        rows = self._data.sample(self._config.batch_size // self._ranks, self._draws)
        label = torch.from_numpy(rows.pop("label"))
        *observed, task = (torch.from_numpy(values) for values in rows.values())
        network = self._network.network
        raw = self._network.decide(*observed, task)
        return imitation_loss(raw, label, network.chunk_mask(task)[:, 0], network.choices).mean()


class DaggerFactory(DistillerFactory[Dagger]):
    """The entry point `dagger` of the group mtrl.distillers."""

    name, metrics = "dagger", METRICS

    def needs(self, config: DistillationConfig, tasks: TaskSet) -> Needs:
        """A stream that the teacher begins, and the teacher."""
        return Needs(online=Stream(int(config.teacher_share * config.steps)), parents=("teacher",))

    def distiller(
        self, config: DistillationConfig, teacher: Policy, tasks: TaskSet, seed: int, *, rank: int, ranks: int
    ) -> Dagger:
        """Of any policy of these tasks."""
        return Dagger(config, teacher, tasks, seed, rank=rank, ranks=ranks)


DAGGER = DaggerFactory()
