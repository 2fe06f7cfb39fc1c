"""What a plan is made from, and what steers it while it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

Estimate = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(condition [N, D], task [N], chunk at some noise level [N, H, C]) -> the clean chunk [N, H, C]."""


@dataclass(frozen=True)
class View:
    """States and task as the network reads them, and corrections of what it says."""

    condition: torch.Tensor
    """[N, D], of `ChunkNetwork.condition`."""
    task: torch.Tensor
    """[N]"""
    away: tuple[tuple[torch.Tensor, float], ...] = ()
    """Other conditions, and how far to go away from what the network says under each: of the states one
    decision earlier (self-guidance), and without the return (classifier-free guidance)."""
    ahead: torch.Tensor | None = None
    """Rows [N, H, C] of the plan that is carried out while this one is made."""
    pull: torch.Tensor | None = None
    """How much each entry of the plan is bound to `ahead`, [H, C], 0 to 1."""
    begin: torch.Tensor | None = None
    """Rows [N, H, C] around which a plan begins, instead of with noise alone."""
    warm: float = 0.0
    """Noise level at which it does."""

    def clean(self, estimate: Estimate, noisy: torch.Tensor) -> torch.Tensor:
        """The estimate of the clean chunk [N, H, C] at `noisy`, steered.

        Self-guidance (So et al. 2025, arXiv 2510.12392), in one pass of twice as many rows:
        D = D(s_t) + w (D(s_t) - D(s_{t-1})).
        Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598) alike:
        D = D(target) + (w - 1) (D(target) - D(hidden)).
        Real-time chunking (Black et al. 2025, arXiv 2506.07339), without its backward pass:
        D' = D + pull (ahead - D).
        """
        if self.away:
            together = torch.cat([self.condition, *(other for other, _ in self.away)])
            count = 1 + len(self.away)
            seen, *others = estimate(together, self.task.repeat(count), noisy.repeat(count, 1, 1)).chunk(
                count
            )
            found = seen
            for (_, weight), other in zip(self.away, others, strict=True):
                found = found + weight * (seen - other)
        else:
            found = estimate(self.condition, self.task, noisy)
        return self.bind(found)

    def bind(self, chunk: torch.Tensor) -> torch.Tensor:
        """The first columns of a chunk [N, H, C] or all of them, drawn to the plan before as far as they are
        bound to it.
        """
        if self.ahead is None or self.pull is None:
            return chunk
        columns = chunk.shape[-1]
        return chunk + self.pull[:, :columns] * (self.ahead[..., :columns] - chunk)
