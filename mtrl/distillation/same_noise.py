"""Distillation by same-noise regression.

The teacher turns noise z into a chunk; the student learns the same map in one forward pass, from the same z:
loss = |student(s, z) - teacher(s, z)|^2 (the default of RL-100, arXiv 2510.14830). Because z is shared, the
student keeps the teacher's modes instead of averaging them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from mtrl.errors import DivergenceError
from mtrl.reducer import Reducer
from mtrl.rollout import ChunkSampler, Policy, PolicySnapshot
from mtrl.tasks import TaskSet
from mtrl.training import Metric, Metrics, State, Use

from .chunk_learner import ChunkLearner
from .config import DistillationConfig
from .factory import DistillerFactory
from .student import Student, StudentForm
from .teacher import FirstStep, WarmStart, inherit, require_same_sizes, teacher_of

METRICS: Metrics = {
    "loss": Metric(
        "sum over the batch of mask (student(s, z) - teacher(s, z))^2 / sum of mask, before clipping; "
        "mask: real action dimensions of the chunk",
        "1",
        "mtrl.distillation.same_noise:SameNoiseDistiller.update",
    ),
    "gradient_norm": Metric(
        "Euclidean norm of the gradient of loss over all weights, before clipping to 1",
        "1",
        "mtrl.distillation.same_noise:SameNoiseDistiller.update",
    ),
    "learning_rate": Metric(
        "learning_rate / 2 (1 + cos(pi n / updates)) at update n",
        "1",
        "mtrl.distillation.same_noise:SameNoiseDistiller.update",
    ),
}
"""What `SameNoiseDistiller.update` returns."""

POOL_BATCHES = 64
"""Labelled batches kept; large enough that a batch drawn from the pool is nearly independent."""


class SameNoiseDistiller(ChunkLearner[Student]):
    """Trains a student on demonstrated states that the teacher labels; an agent of demonstrations."""

    NAME, KEY, STREAM = "the student", "student", 2

    def __init__(
        self,
        config: DistillationConfig,
        teacher: ChunkSampler,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """Raises ConfigError when history or chunk differ, or ranks cannot share the batch."""
        require_same_sizes(config, teacher.spec, ranks)
        self._config, self._teacher, self._ranks = config, teacher, ranks
        warm = teacher if isinstance(teacher, WarmStart) else None
        first_step = FirstStep() if warm is None else warm.first_step
        form = StudentForm(config.network, config.execution, teacher.spec.noise_size, first_step)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            student = Student(form, tasks.layout)
        if warm is not None:
            inherit(student.network, warm.network)
        super().__init__(
            student,
            config.network,
            tasks,
            seed,
            rank=rank,
            ranks=ranks,
            learning_rate=config.learning_rate,
            weight_decay=0.0,
            ema_decay=config.ema_decay,
            gradient_clip=1.0,
            keeps_moments=warm is not None,
        )
        self._pool: dict[str, torch.Tensor] = {}

    @property
    def student(self) -> Student:
        """The averaged student."""
        return self._average

    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        """The averaged student as data."""
        return self._average.snapshot(self.updates)

    def update(self, reducer: Reducer) -> Mapping[str, float]:
        """One regression step on a batch from the pool; every `reuse` updates the pool gains a batch."""
        self._data.require_ready()
        several = reducer.size > 1

        def make() -> dict[str, torch.Tensor]:
            if self.updates % self._config.reuse == 0 or not self._pool:
                self._grow_pool()
            loss, entries = self._loss()
            if several and not torch.isfinite(loss):
                raise DivergenceError(self.NAME, self.updates + 1, f"loss {loss.item()}")
            found = self._backward(loss) | {"/loss": loss.detach()}
            if several:
                # a mean over all ranks, whose masks differ in size: sum_r n_r loss_r / sum_r n_r
                found = {name: value * entries for name, value in found.items()}
            return found | {"/entries": entries}

        found = dict(reducer.sums(make, self._like(loss=(), entries=())))
        entries = found.pop("/entries")
        if several:
            found = {name: value / entries for name, value in found.items()}
        # rate_n = rate / 2 (1 + cos(pi n / N))  (SGDR without restarts, Loshchilov and Hutter 2017)
        cosine = 0.5 * (1 + math.cos(math.pi * self.updates / self._config.updates))
        return self._step(found, float(found.pop("/loss")), self._config.learning_rate * cosine)

    def local_state(self) -> State:
        """Labelled pool and random states."""
        return {**super().local_state(), "pool": dict(self._pool)}

    def restore(self, shared: State, local: State | None) -> None:
        """Restores both; without `local` the pool starts again."""
        super().restore(shared, local)
        if local is not None:
            self._pool = dict(local["pool"])

    def _loss(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean squared error over the entries of this rank's batch, and their number."""
        size = self._config.batch_size // self._ranks
        rows = self._draws.integers(len(self._pool["task"]), size=size)
        states, task, z, target = (self._pool[name][rows] for name in ("states", "task", "z", "target"))
        predicted = self._network.unclipped(states, task, z if z.shape[1] else None)
        # L = sum mask (student(s, z) - teacher(s, z))^2 / sum mask
        network = self._network.network
        mask = network.chunk_mask(task)[:, :, : network.actions]
        entries = mask.sum()
        return ((predicted - target) ** 2 * mask).sum() / entries, entries

    def _grow_pool(self) -> None:
        """Labels a batch with the teacher; the oldest goes when the pool is full."""
        batch = self._data.sample(self._config.batch_size // self._ranks, self._draws)
        states = batch.buckets["state"].values.flatten(0, 1)
        task = batch.task_index.repeat_interleave(batch.weight.shape[1])
        real = batch.weight.flatten() > 0
        if not bool(real.all()):
            states, task = states[real], task[real]
        network = self._network.network
        # s' = s + jitter sigma_task xi: the teacher is copied near the demonstrations too
        shift = self._config.jitter * torch.randn(states.shape, generator=self._noise)
        states = states + shift * network.scale[task][:, None] * network.state_mask[task][:, None]
        z = torch.randn(len(states), self._teacher.spec.noise_size, generator=self._noise)
        chunk = self._teacher.sample(states.numpy(), task.numpy(), z.numpy())
        target = torch.from_numpy(chunk[:, :, : self._teacher.spec.actions])
        limit = POOL_BATCHES * len(states)
        for name, values in {"states": states, "task": task, "z": z, "target": target}.items():
            held = self._pool.get(name)
            self._pool[name] = values if held is None else torch.cat([held, values])[-limit:]


class SameNoiseFactory(DistillerFactory[SameNoiseDistiller]):
    """The entry point `same_noise` of the group mtrl.distillers."""

    name, metrics = "same_noise", METRICS

    def distiller(
        self, config: DistillationConfig, teacher: Policy, tasks: TaskSet, seed: int, *, rank: int, ranks: int
    ) -> SameNoiseDistiller:
        """Of any policy that is a map to chunks; see `teacher_of`."""
        return SameNoiseDistiller(config, teacher_of(teacher, tasks), tasks, seed, rank=rank, ranks=ranks)


SAME_NOISE = SameNoiseFactory()
