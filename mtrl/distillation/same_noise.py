"""Distillation by same-noise regression.

The teacher turns noise z into a chunk by a deterministic sampler of K steps; the student learns the
same map in one forward pass, from the same z: loss = |student(s, z) - teacher(s, z)|^2 (the default of
RL-100, arXiv 2510.14830). Because z is shared, the student keeps the teacher's modes instead of
averaging them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from mtrl.data import RankDataset
from mtrl.errors import ConfigError, DivergenceError
from mtrl.nn import ChunkNetwork, update_average
from mtrl.reducer import Reducer
from mtrl.rollout import EpisodeGroup, Fragment, PolicySnapshot
from mtrl.tasks import TaskSet
from mtrl.training import Datasets, Metric, Metrics, State, Use

from .config import DistillationConfig
from .student import Student, StudentForm
from .teacher import ChunkTeacher

if TYPE_CHECKING:
    from mtrl.evaluation import EvaluationResult

DISTILLATION_METRICS: Metrics = {
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

POOL_FIELDS = ("states", "task", "z", "target")

POOL_BATCHES = 64
"""Labelled batches kept; large enough that a batch drawn from the pool is nearly independent."""


def require_same_chunks(config: DistillationConfig, teacher: ChunkTeacher) -> None:
    """Raises ConfigError when the student would see another history or plan another chunk length."""
    for key in ("history", "chunk"):
        mine, theirs = getattr(config.network, key), getattr(teacher.shape, key)
        if mine != theirs:
            raise ConfigError(
                f"distillation.network.{key}={mine}, the teacher's is {theirs}; they must be equal"
            )


class SameNoiseDistiller:
    """Teaches a student, as an agent that learns from demonstrated states and a teacher."""

    def __init__(
        self,
        config: DistillationConfig,
        teacher: ChunkTeacher,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """Raises ConfigError when history or chunk differ, or ranks cannot share the batch."""
        require_same_chunks(config, teacher)
        if config.batch_size % ranks:
            raise ConfigError(
                f"distillation.batch_size={config.batch_size} is what all ranks take together; expected a "
                f"multiple of their number, {ranks}"
            )
        self.updates = 0
        self._config, self._teacher, self._ranks = config, teacher, ranks
        form = StudentForm(config.network, config.execution, teacher.noise_size, teacher.first_step)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._student = Student(form, tasks.layout)
        _inherit(self._student.network, teacher.network)
        self._average = copy.deepcopy(self._student).requires_grad_(False).eval()
        self._optimizer = torch.optim.AdamW(
            self._student.parameters(), lr=config.learning_rate, weight_decay=0.0, fused=True
        )
        shape = config.network
        self._data = RankDataset(tasks.layout, shape.history, shape.chunk, ranks, "the student")
        self._draws = np.random.default_rng([seed, 2, rank] if rank else [seed, 2])
        self._noise = torch.Generator().manual_seed(seed + 2 + 1_000_003 * rank)
        self._pool: dict[str, torch.Tensor] = {}

    @property
    def student(self) -> Student:
        """The averaged student."""
        return self._average

    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        """The averaged student as data."""
        return self._average.snapshot(self.updates)

    def ingest(self, data: Fragment | EpisodeGroup | Datasets) -> None:
        """Takes demonstrations, whose states the student imitates on."""
        if not isinstance(data, Datasets):
            raise ConfigError("the student learns from demonstrations (Datasets)")
        self._data.ingest(data.trajectories)

    def due(self, steps: int, reducer: Reducer) -> int:
        """All updates that were granted, once the demonstrations are there."""
        ready = self._data.ready or self._data.agree(reducer)
        return max(0, steps - self.updates) if ready else 0

    def on_evaluation(self, step: int, result: EvaluationResult) -> None:
        """Nothing follows from it."""

    def update(self, reducer: Reducer) -> Mapping[str, float]:
        """One regression step on a batch from the pool; every `reuse` updates the pool gains a batch."""
        self._data.require_ready()
        named = dict(self._student.named_parameters())

        def make() -> dict[str, torch.Tensor]:
            if self.updates % self._config.reuse == 0 or not self._pool:
                self._grow_pool()
            loss, entries = self._loss()
            if reducer.size > 1 and not torch.isfinite(loss):
                raise DivergenceError("the student", self.updates + 1, f"loss {loss.item()}")
            self._student.zero_grad(set_to_none=True)
            loss.backward()
            found = {name: value.grad for name, value in named.items() if value.grad is not None}
            found["/loss"] = loss.detach()
            if reducer.size > 1:
                # masks differ in size between ranks
                found = {name: value * entries for name, value in found.items()}
            return found | {"/entries": entries}

        like: dict[str, tuple[Sequence[int], torch.dtype]]
        like = {name: (value.shape, value.dtype) for name, value in named.items()}
        kind = self._student.network.mean.dtype
        found = dict(reducer.sums(make, like | {"/loss": ((), kind), "/entries": ((), kind)}))
        entries = found.pop("/entries")
        if reducer.size > 1:
            found = {name: value / entries for name, value in found.items()}
        loss = found.pop("/loss")
        for name, parameter in named.items():
            parameter.grad = found.get(name)
        norm = torch.nn.utils.clip_grad_norm_(self._student.parameters(), 1.0)
        if not torch.isfinite(loss) or not torch.isfinite(norm):
            raise DivergenceError(
                "the student", self.updates + 1, f"loss {float(loss)}, gradient norm {float(norm)}"
            )
        rate = (
            self._config.learning_rate * 0.5 * (1 + math.cos(math.pi * self.updates / self._config.updates))
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self.updates += 1
        decay = min(self._config.average_decay, (1 + self.updates) / (10 + self.updates))
        update_average(self._average, self._student, decay)
        return {"loss": float(loss), "gradient_norm": float(norm), "learning_rate": rate}

    def shared_state(self) -> State:
        """Weights and optimiser."""
        return {
            "student": dict(self._student.state_dict()),
            "average": dict(self._average.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "updates": self.updates,
        }

    def local_state(self) -> State:
        """Labelled pool and random states."""
        return {
            "draws": self._draws.bit_generator.state,
            "noise": self._noise.get_state(),
            "pool": dict(self._pool),
        }

    def restore(self, shared: State, local: State | None) -> None:
        """Restores both; without `local` the pool starts again."""
        self._student.load_state_dict(shared["student"])
        self._average.load_state_dict(shared["average"])
        self._optimizer.load_state_dict(shared["optimizer"])
        self.updates = shared["updates"]
        if local is not None:
            self._draws.bit_generator.state = local["draws"]
            self._noise.set_state(local["noise"])
            self._pool = dict(local["pool"])

    def _loss(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean squared error over the entries of this rank's batch, and their number."""
        size = self._config.batch_size // self._ranks
        picked = self._draws.integers(len(self._pool["task"]), size=size)
        states, task, z, target = (self._pool[name][picked] for name in POOL_FIELDS)
        predicted = self._student.unclipped(states, task, z if z.shape[1] else None)
        mask = self._student.network.chunk_mask(task)
        entries = mask.sum()
        return ((predicted - target) ** 2 * mask).sum() / entries, entries

    def _grow_pool(self) -> None:
        """Labels a batch with the teacher; the oldest goes when the pool is full."""
        batch = self._data.sample(self._config.batch_size // self._ranks, self._draws)
        states = batch.buckets["state"].values.flatten(0, 1)
        task = batch.task_index.repeat_interleave(batch.weight.shape[1])
        there = batch.weight.flatten() > 0
        if not bool(there.all()):
            states, task = states[there], task[there]
        network = self._student.network
        shift = self._config.jitter * torch.randn(states.shape, generator=self._noise)
        states = states + shift * network.scale[task][:, None] * network.state_mask[task][:, None]
        z = torch.randn(len(states), self._teacher.noise_size, generator=self._noise)
        fresh = {"states": states, "task": task, "z": z, "target": self._teacher.chunk(states, task, z)}
        limit = POOL_BATCHES * len(states)
        for name, values in fresh.items():
            held = self._pool.get(name)
            self._pool[name] = values if held is None else torch.cat([held, values])[-limit:]


@torch.no_grad()
def _inherit(student: ChunkNetwork, teacher: ChunkNetwork) -> None:
    """Copies every weight and buffer of equal name and shape: all of them for equal sizes, the first
    blocks for a shallower student, at least the normalisation for any other.
    """
    theirs = teacher.state_dict()
    for name, mine in student.state_dict().items():
        if name in theirs and theirs[name].shape == mine.shape:
            mine.copy_(theirs[name])
