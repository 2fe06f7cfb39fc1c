"""Distillation by same-noise regression.

The teacher turns noise z into a chunk by a deterministic sampler of K steps; the student learns the
same map in one forward pass, from the same z: loss = |student(s, z) - teacher(s, z)|^2 (the default of
RL-100, arXiv 2510.14830). Because z is shared, the student keeps the teacher's modes instead of
averaging them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mtrl.data import ChunkDataset, Trajectories
from mtrl.errors import ConfigError, DivergenceError
from mtrl.nn import ChunkNetwork, update_average
from mtrl.rollout import PolicySnapshot
from mtrl.tasks import TaskSet
from mtrl.training import Metric, Metrics

from .config import DistillationConfig
from .student import Student, StudentForm
from .teacher import ChunkTeacher

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
    """Teaches a student; resumable like an agent (`update`, `state_dict`, `load_state_dict`)."""

    def __init__(
        self,
        config: DistillationConfig,
        teacher: ChunkTeacher,
        tasks: TaskSet,
        data: Mapping[int, Trajectories],
        seed: int,
    ) -> None:
        """`data` gives the states to imitate on; raises ConfigError when history or chunk differ."""
        require_same_chunks(config, teacher)
        self.updates = 0
        self._config, self._teacher, self._layout = config, teacher, tasks.layout
        form = StudentForm(config.network, config.execution, teacher.noise_size, teacher.first_step)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._student = Student(form, tasks.layout)
        _inherit(self._student.network, teacher.network)
        self._average = copy.deepcopy(self._student).requires_grad_(False).eval()
        self._optimizer = torch.optim.AdamW(
            self._student.parameters(), lr=config.learning_rate, weight_decay=0.0, fused=True
        )
        self._dataset = ChunkDataset(tasks.layout, data, config.network.history, config.network.chunk)
        self._draws = np.random.default_rng([seed, 2])
        self._noise = torch.Generator().manual_seed(seed + 2)
        self._pool: dict[str, torch.Tensor] = {}

    @property
    def student(self) -> Student:
        """The averaged student."""
        return self._average

    def snapshot(self) -> PolicySnapshot:
        """The averaged student as data."""
        return self._average.snapshot(self.updates)

    def update(self) -> Mapping[str, float]:
        """One regression step on a batch from the pool; every `reuse` updates the pool gains a batch."""
        if self.updates % self._config.reuse == 0:
            self._grow_pool()
        picked = self._draws.integers(len(self._pool["task"]), size=self._config.batch_size)
        states, task, z, target = (self._pool[name][picked] for name in POOL_FIELDS)
        self._student.zero_grad(set_to_none=True)
        predicted = self._student.unclipped(states, task, z if z.shape[1] else None)
        mask = self._student.network.chunk_mask(task)
        loss = ((predicted - target) ** 2 * mask).sum() / mask.sum()
        loss.backward()
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
        return {"loss": float(loss.detach()), "gradient_norm": float(norm), "learning_rate": rate}

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser, labelled pool and random states."""
        return {
            "student": dict(self._student.state_dict()),
            "average": dict(self._average.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "updates": self.updates,
            "draws": self._draws.bit_generator.state,
            "noise": self._noise.get_state(),
            "pool": dict(self._pool),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`."""
        self._student.load_state_dict(state["student"])
        self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.updates = state["updates"]
        self._draws.bit_generator.state = state["draws"]
        self._noise.set_state(state["noise"])
        self._pool = dict(state["pool"])

    def _grow_pool(self) -> None:
        """Labels a batch with the teacher; the oldest goes when the pool is full."""
        batch = self._dataset.sample(self._config.batch_size, self._draws)
        states = batch.buckets["state"].values.flatten(0, 1)
        task = batch.task_index.repeat_interleave(batch.weight.shape[1])
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
