"""From an output layer's raw numbers to actions and values; nothing here has weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mtrl.errors import OutOfRangeError, SpaceError, UnknownNameError

from .distributions import Categorical, Gaussian, TanhGaussian, TwoHot


@dataclass(frozen=True)
class GaussianHeadConfig:
    """Bounds of a Gaussian policy's spread."""

    lowest_log_std: float = -20.0
    """Lower bound of ln std (Meta-World+: -20; MOORE: -10)."""
    highest_log_std: float = 2.0
    """Upper bound of ln std, above the lower one (Meta-World+: 2)."""
    start_log_std: float = 0.0
    """ln std of a raw output of 0, between the bounds (Meta-World+: 0)."""
    bounding: str = "clip"
    """"clip" (Meta-World+; no gradient beyond a bound) or "tanh" (smooth)."""
    squash: bool = True
    """Whether actions pass through tanh (SAC: true; MTPPO: false)."""

    def __post_init__(self) -> None:
        if self.bounding not in ("clip", "tanh"):
            raise UnknownNameError("bounding", self.bounding, ("clip", "tanh"))
        if not self.lowest_log_std < self.highest_log_std:
            raise OutOfRangeError("lowest_log_std", self.lowest_log_std, f"below {self.highest_log_std}")
        if not self.lowest_log_std < self.start_log_std < self.highest_log_std:
            raise OutOfRangeError(
                "start_log_std", self.start_log_std, f"{self.lowest_log_std} to {self.highest_log_std}"
            )


class GaussianHead(nn.Module):
    """Raw [..., K, B, 2 A] -> a policy over the action dimensions that each task has."""

    mask: torch.Tensor

    def __init__(self, config: GaussianHeadConfig, mask: npt.NDArray[np.bool_]) -> None:
        """`mask` [T, A], True where the task has the dimension: Layout.continuous_mask."""
        super().__init__()
        self.config = config
        self.outputs = 2 * mask.shape[1]
        self.register_buffer("mask", torch.as_tensor(mask), persistent=False)

    def forward(self, raw: torch.Tensor, task_index: torch.Tensor) -> Gaussian:
        """A Gaussian, squashed by tanh unless configured otherwise."""
        _check(raw, self.outputs, task_index)
        mean, spread = raw.chunk(2, dim=-1)
        kind = TanhGaussian if self.config.squash else Gaussian
        return kind(mean, self._bounded(spread), self.mask[task_index].unsqueeze(-2))

    def _bounded(self, raw: torch.Tensor) -> torch.Tensor:
        low, high, start = (
            self.config.lowest_log_std,
            self.config.highest_log_std,
            self.config.start_log_std,
        )
        wide = raw if raw.dtype == torch.float64 else raw.float()
        if self.config.bounding == "clip":
            return (wide + start).clamp(low, high)
        half = 0.5 * (high - low)
        return low + half * (1.0 + torch.tanh(wide + math.atanh((start - low) / half - 1.0)))


class CategoricalHead(nn.Module):
    """Raw [..., K, B, n] -> a policy over each task's legal actions."""

    legal: torch.Tensor

    def __init__(self, legal: npt.NDArray[np.bool_]) -> None:
        """`legal` [T, n]: Layout.legal_mask."""
        super().__init__()
        self.outputs = legal.shape[1]
        self.register_buffer("legal", torch.as_tensor(legal), persistent=False)

    def forward(self, raw: torch.Tensor, task_index: torch.Tensor) -> Categorical:
        """Illegal actions have probability exactly 0."""
        _check(raw, self.outputs, task_index)
        return Categorical(raw, self.legal[task_index].unsqueeze(-2))


class ScalarValueHead(nn.Module):
    """Raw [..., 1] -> [...], for regression by squared error."""

    outputs = 1

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """In float32 or wider."""
        return (raw if raw.dtype == torch.float64 else raw.float()).squeeze(-1)


@dataclass(frozen=True)
class TwoHotConfig:
    """Bins of a categorical value."""

    bins: int = 101
    """Number of bins, 3 to 1001 (BRC, TD-MPC2: 101)."""
    lowest: float = -10.0
    """Centre of the first bin; in symlog units when `symmetric_log` (BRC: -10)."""
    highest: float = 10.0
    """Centre of the last bin, above `lowest` (BRC: 10)."""
    symmetric_log: bool = False
    """Whether bins are even in sign(x) ln(1 + |x|), for returns of unknown size (BRC: false; DreamerV3 and
    TD-MPC2: true)."""

    def __post_init__(self) -> None:
        if not 3 <= self.bins <= 1001:
            raise OutOfRangeError("bins", self.bins, "3 to 1001")
        if not self.lowest < self.highest:
            raise OutOfRangeError("lowest", self.lowest, f"below highest={self.highest}")


class TwoHotValueHead(nn.Module):
    """Raw [..., bins] -> a value by classification: `-head(raw).log_prob(target)` is the loss."""

    centres: torch.Tensor

    def __init__(self, config: TwoHotConfig) -> None:
        """See TwoHotConfig."""
        super().__init__()
        self.config = config
        self.outputs = config.bins
        centres = torch.linspace(config.lowest, config.highest, config.bins)
        self.register_buffer("centres", centres, persistent=False)

    def forward(self, raw: torch.Tensor) -> TwoHot:
        """`.mean()` is the value."""
        return TwoHot(raw, self.centres, self.config.symmetric_log)


def _check(raw: torch.Tensor, outputs: int, task_index: torch.Tensor) -> None:
    if raw.dim() < 3 or raw.shape[-1] != outputs or raw.shape[-3] != len(task_index):
        raise SpaceError(
            f"raw outputs [..., {len(task_index)}, B, {outputs}] are expected; got {list(raw.shape)}"
        )
