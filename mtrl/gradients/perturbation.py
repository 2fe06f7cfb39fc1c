"""Sharpness-aware gradients: each task's gradient a short way uphill of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from .jacobian import TaskRows


class SAMPerturbation:
    """The perturbations of SAMO (Ban et al. 2025, arXiv 2507.07883), one per task.

    In every shared parameter the direction is g = (1 - local) a + local |a| g_k / |g_k|, with a the mean over
    tasks and g_k the task's own gradient; the step is radius g / |g|, the norm over all shared parameters.
    What a task owns moves along its own gradient, radius long. The paper estimates g_k from two forward
    passes, since a backward pass per task is dear to it; here g_k is exact, for it came with the mean.
    """

    def __init__(self, rows: TaskRows, radius: float, local: float) -> None:
        """`rows` may be overwritten task by task, each once its step was taken."""
        self._rows = rows
        self._radius, self._local = radius, local
        self._mean = {name: values.mean(0) for name, values in rows.shared.items()}

    def step(self, task: int) -> dict[str, torch.Tensor]:
        """Parameter name -> what to add to it before the gradient of `task` is taken."""
        shared = {}
        for name, mean in self._mean.items():
            own = self._rows.shared[name][task]
            length = own.norm()
            alike = torch.where(length > 0, mean.norm() / length.clamp_min(1e-30), 0.0)
            shared[name] = (1 - self._local) * mean + self._local * alike * own
        single = torch.zeros(self._rows.tasks)
        single[task] = 1.0
        owned = {name: rows.weighted(single) for name, rows in self._rows.owned.items()}
        return self._scaled(shared) | self._scaled(owned)

    def _scaled(self, direction: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if not direction:
            return {}
        length = torch.stack([values.norm() for values in direction.values()]).norm()
        scale = torch.where(length > 0, self._radius / length.clamp_min(1e-30), 0.0)
        return {name: scale * values for name, values in direction.items()}


@contextmanager
def perturbed(parameters: Mapping[str, nn.Parameter], step: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Parameters plus `step` for as long as the context lasts; afterwards they are what they were, bit for
    bit.
    """
    kept = {name: parameters[name].detach().clone() for name in step}
    try:
        with torch.no_grad():
            for name, values in step.items():
                parameters[name].add_(values)
        yield
    finally:
        with torch.no_grad():
            for name, values in kept.items():
                parameters[name].copy_(values)
