"""Distillation of a diffusion policy by consistency (Song et al. 2023, arXiv 2303.01469, algorithm 2).

All points of a path of the probability-flow equation lead to one chunk, so the student's answer at a noise
level must be its own at the next smaller one, to which the teacher leads; at the smallest it is the point
itself. The answer at the largest level is then the whole path in one forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch

from mtrl.distillation import (
    ChunkLearner,
    DistillationConfig,
    DistillerFactory,
    FirstStep,
    Student,
    StudentForm,
    inherit,
    require_same_sizes,
)
from mtrl.errors import DivergenceError, UnsupportedError
from mtrl.reducer import Reducer
from mtrl.rollout import ChunkPolicy, Policy, PolicySnapshot
from mtrl.structured import Checked, between, build
from mtrl.tasks import TaskSet
from mtrl.training import Metric, Metrics, Use

from .config import NoiseLevels
from .denoiser import sigma_grid
from .edm import EDM
from .objective import entry_weights, masked_mean
from .policy import DiffusionSampler

_UPDATE = "mtrl.agents.diffusion.consistency:ConsistencyDistiller.update"
METRICS: Metrics = {
    "loss": Metric(
        "mean over the batch of |f(x_m, s_m) - f'(x_n, s_n)|^2 / (s_m - s_n), averaged over real chunk "
        "entries; f' is the moving average, x_n the teacher's Euler step from x_m to the next smaller noise "
        "level",
        "1",
        _UPDATE,
    ),
    "gradient_norm": Metric(
        "Euclidean norm of the gradient of loss over all weights, before clipping to 1", "1", _UPDATE
    ),
    "learning_rate": Metric("learning_rate / 2 (1 + cos(pi n / updates)) at update n", "1", _UPDATE),
}
"""What `ConsistencyDistiller.update` returns."""


@dataclass(frozen=True)
class ConsistencyConfig(Checked, place="distillation.settings"):
    """Settings of consistency distillation, under `distillation.settings`."""

    levels: Annotated[int, between(2, 1000)] = 18
    """Noise levels N of the path, 2 to 1000 (Song et al. 2023: 18)."""


def boundary(sigma: torch.Tensor, levels: NoiseLevels) -> tuple[torch.Tensor, ...]:
    """(c_skip, c_out, c_in, c_noise), each shaped like `sigma`, by which f(x, smallest sigma) = x (Song et
    al. 2023, appendix C).
    """
    deviation, above = levels.data_deviation, sigma - levels.minimum
    root = (sigma**2 + deviation**2).sqrt()
    return (
        deviation**2 / (above**2 + deviation**2),
        above * deviation / root,
        1 / root,
        sigma.log() / 4,
    )


class ConsistencyDistiller(ChunkLearner[Student]):
    """Trains a student to answer alike along the teacher's path; an agent of demonstrations."""

    NAME, KEY, STREAM = "the student", "student", 4

    def __init__(
        self,
        config: DistillationConfig,
        teacher: DiffusionSampler,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """Raises ConfigError when history or chunk differ, or ranks cannot share the batch, UnsupportedError
        for a teacher that does not denoise.
        """
        if not isinstance(teacher.objective, EDM):
            raise UnsupportedError(
                "distillation.method=consistency follows the path of agent.objective=diffusion; this teacher "
                "has another objective. Distil it with distillation.method=same_noise"
            )
        if teacher.spec.planned:
            raise UnsupportedError(
                "distillation.method=consistency follows a path of actions alone; this teacher has "
                "agent.plan.stride above 0. Distil it with distillation.method=same_noise"
            )
        require_same_sizes(config, teacher.spec, ranks)
        settings = build(ConsistencyConfig, config.settings, "distillation.settings")
        self._config, self._ranks, self._teacher, self._edm = config, ranks, teacher, teacher.objective
        self._levels = teacher.objective.levels
        self._grid = sigma_grid(self._levels, settings.levels)[:-1].flip(0)
        skip, out, into, level = (float(c) for c in boundary(self._grid[-1], self._levels))
        largest = float(self._grid[-1])
        first = FirstStep(scale=into * largest, skip=skip * largest, gain=out, level=level)
        form = StudentForm(config.network, config.execution, teacher.spec.noise_size, first)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            student = Student(form, tasks.layout)
        inherit(student.network, teacher.network)
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
            keeps_moments=True,
        )

    @property
    def student(self) -> Student:
        """The averaged student."""
        return self._average

    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        """The averaged student as data."""
        return self._average.snapshot(self.updates)

    def update(self, reducer: Reducer) -> Mapping[str, float]:
        """One step on demonstrated chunks, each at a level of its own."""
        self._data.require_ready()

        def make() -> dict[str, torch.Tensor]:
            total, entries = self._loss()
            if reducer.size > 1 and not torch.isfinite(total):
                raise DivergenceError(self.NAME, self.updates + 1, f"loss {total.item()}")
            return self._backward(total) | {"/loss": total.detach(), "/entries": entries}

        found = dict(reducer.sums(make, self._like(loss=(), entries=())))
        entries = found.pop("/entries")
        found = {name: value / entries for name, value in found.items()}
        cosine = 0.5 * (1 + math.cos(math.pi * self.updates / self._config.updates))
        return self._step(found, float(found.pop("/loss")), self._config.learning_rate * cosine)

    def _loss(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of this rank's losses, and their number."""
        batch = self._data.sample(self._config.batch_size // self._ranks, self._draws)
        kept = batch.weight.flatten() > 0
        task = batch.task_index.repeat_interleave(batch.weight.shape[1])[kept]
        states = batch.buckets["state"].values.flatten(0, 1)[kept]
        chunk, real = (batch.fields[name].flatten(0, 1)[kept] for name in ("chunk", "real"))
        index = torch.randint(len(self._grid) - 1, (len(task),), generator=self._noise)
        smaller, larger = self._grid[index], self._grid[index + 1]
        mask = self._network.network.chunk_mask(task)
        noise = torch.randn(chunk.shape, generator=self._noise)
        start = (chunk + larger[:, None, None] * noise) * mask  # x_m = a + s_m e
        with torch.no_grad():
            clean = self._teacher.view(states, task).clean(self._edm.denoise(larger), start)
            # an Euler step of the teacher: x_n = x_m + (s_n - s_m) (x_m - D(x_m, s_m)) / s_m
            step = ((smaller - larger) / larger)[:, None, None]
            target = self._answer(self._average, states, task, start + step * (start - clean), smaller)
        found = self._answer(self._network, states, task, start, larger)
        losses = masked_mean((found - target) ** 2, entry_weights(mask, real)) / (larger - smaller)
        return losses.sum(), torch.tensor(float(len(losses)))

    def _answer(
        self,
        student: Student,
        states: torch.Tensor,
        task: torch.Tensor,
        noisy: torch.Tensor,
        sigma: torch.Tensor,
    ) -> torch.Tensor:
        """f(x, sigma) = c_skip x + c_out F(c_in x, c_noise), [N, H, A]."""
        network = student.network
        skip, out, into, level = boundary(sigma, self._levels)
        raw = network(network.condition(states, task), task, into[:, None, None] * noisy, level)
        answer: torch.Tensor = skip[:, None, None] * noisy + out[:, None, None] * raw
        return answer


class ConsistencyFactory(DistillerFactory[ConsistencyDistiller]):
    """The entry point `consistency` of the group mtrl.distillers."""

    name, metrics, takes_settings = "consistency", METRICS, True

    def distiller(
        self, config: DistillationConfig, teacher: Policy, tasks: TaskSet, seed: int, *, rank: int, ranks: int
    ) -> ConsistencyDistiller:
        """Of a policy of the diffusion agent alone."""
        if not isinstance(teacher, ChunkPolicy) or not isinstance(teacher.sampler, DiffusionSampler):
            raise UnsupportedError(
                "distillation.method=consistency distils a policy of the diffusion agent; got a "
                f"{type(teacher).__name__} of another. Distil with same_noise or dagger"
            )
        return ConsistencyDistiller(config, teacher.sampler, tasks, seed, rank=rank, ranks=ranks)


CONSISTENCY = ConsistencyFactory()
