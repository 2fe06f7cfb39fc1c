"""Sharpness-aware gradients: each task's gradient at weights perturbed towards a higher loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from .jacobian import TaskRows


class SAMPerturbation:
    """The perturbations of SAMO (Ban et al. 2025, arXiv 2507.07883), one per task.

    The paper estimates each task's gradient g_k from two forward passes; here it is exact, since it is
    computed together with the mean. What a task owns moves along its own gradient alone.
    """

    def __init__(self, rows: TaskRows, rho: float, local: float) -> None:
        """`rho` is the length of a perturbation, `local` the share of the task's own gradient in it. `rows`
        may be overwritten task by task, each once its perturbation was taken.
        """
        self._rows, self._rho, self._local = rows, rho, local
        self._mean = {name: values.mean(0) for name, values in rows.shared.items()}

    def of(self, task: int) -> dict[str, torch.Tensor]:
        """Parameter name -> what to add to it before the gradient of `task` is taken."""
        shared = {}
        for name, mean in self._mean.items():
            own = self._rows.shared[name][task]
            length = own.norm()
            # per parameter, with g the mean over tasks: (1 - local) g + local |g| g_k / |g_k|
            alike = torch.where(length > 0, mean.norm() / length.clamp_min(1e-30), 0.0)
            shared[name] = (1 - self._local) * mean + self._local * alike * own
        single = torch.zeros(self._rows.tasks)
        single[task] = 1.0
        owned = {name: rows.weighted(single) for name, rows in self._rows.owned.items()}
        return self._scaled(shared) | self._scaled(owned)

    def _scaled(self, direction: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if not direction:
            return {}
        # epsilon = rho g / |g|, the norm over all parameters together
        length = torch.stack([values.norm() for values in direction.values()]).norm()
        scale = torch.where(length > 0, self._rho / length.clamp_min(1e-30), 0.0)
        return {name: scale * values for name, values in direction.items()}


@contextmanager
def perturbed(parameters: Mapping[str, nn.Parameter], step: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Adds `step` to parameters within the context and restores them bit for bit."""
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
