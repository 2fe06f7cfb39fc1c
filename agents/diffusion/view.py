"""What a plan is made from, and what steers it while it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

Estimate = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(condition [N, C], task [N], chunk at some noise level [N, H, A]) -> the clean chunk [N, H, A]."""


@dataclass(frozen=True)
class View:
    """States and task as the network reads them, and two corrections of what it says."""

    condition: torch.Tensor
    """[N, C], of `ChunkNetwork.condition`."""
    task: torch.Tensor
    """[N]"""
    before: torch.Tensor | None = None
    """The condition one decision earlier, for self-guidance."""
    guidance: float = 0.0
    """Weight w of self-guidance."""
    ahead: torch.Tensor | None = None
    """Actions [N, H, A] that are carried out while this plan is made, and those planned after them."""
    pull: torch.Tensor | None = None
    """How much each action of the plan is bound to `ahead`, [H], 0 to 1."""

    def clean(self, estimate: Estimate, noisy: torch.Tensor) -> torch.Tensor:
        """The estimate of the clean chunk [N, H, A] at `noisy`, steered.

        Self-guidance (So et al. 2025, arXiv 2510.12392), in one pass of twice as many rows:
        D = D(s_t) + w (D(s_t) - D(s_{t-1})).
        Real-time chunking (Black et al. 2025, arXiv 2506.07339), without its backward pass:
        D' = D + pull (ahead - D).
        """
        if self.before is None:
            found = estimate(self.condition, self.task, noisy)
        else:
            both = torch.cat([self.condition, self.before])
            now, earlier = estimate(both, self.task.repeat(2), noisy.repeat(2, 1, 1)).chunk(2)
            found = now + self.guidance * (now - earlier)
        if self.ahead is not None and self.pull is not None:
            found = found + self.pull[None, :, None] * (self.ahead - found)
        return found
