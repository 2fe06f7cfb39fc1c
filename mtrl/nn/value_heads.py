"""From a critic's raw outputs to values and losses; nothing here has weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .distributions import full_precision


class ScalarValueHead(nn.Module):
    """Raw [..., 1] is the value itself, trained by half the squared error."""

    outputs = 1

    def __init__(self, clip: float = 0.0) -> None:
        """Losses clip predictions to +-`clip`; 0 clips nothing."""
        super().__init__()
        self.clip = clip

    def values(self, raw: Tensor) -> Tensor:
        """[..., 1] -> [...]"""
        return full_precision(raw[..., 0])

    def losses(self, raw: Tensor, target: Tensor) -> Tensor:
        """Half the squared error of `raw` [..., 1] against `target` [...], per sample [...]."""
        predicted = self.values(raw)
        if self.clip:
            predicted = predicted.clamp(-self.clip, self.clip)
        return 0.5 * (predicted - target).square()

    def losses_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """`losses`, and the gradient [..., 1] of their sum with respect to `raw`; without `clip` only."""
        error = self.values(raw) - target
        return 0.5 * error.square(), error[..., None]

    def value_gradient(self, raw: Tensor, values: Tensor, gradient: Tensor) -> Tensor:
        """The gradient [..., 1] with respect to `raw`, from that [...] of its `values`."""
        return gradient[..., None]


class CategoricalValueHead(nn.Module):
    """Raw [..., bins] are logits over values, trained by cross entropy against a two-hot target."""

    support: Tensor
    """[bins], the values of the bins."""

    def __init__(self, bins: int, value_range: float, *, symmetric_log: bool = False) -> None:
        """`bins` even values in [-value_range, value_range], in symlog units with `symmetric_log` (Hafner et
        al. 2023, arXiv 2301.04104, equation 9): fine around 0, coarse far from it.
        """
        super().__init__()
        self.outputs, self.symmetric_log = bins, symmetric_log
        self.register_buffer("support", torch.linspace(-value_range, value_range, bins), persistent=False)

    def values(self, raw: Tensor) -> Tensor:
        """[..., bins] -> [...], the mean of the distribution."""
        mean = full_precision(raw).softmax(-1) @ self.support
        return symexp(mean) if self.symmetric_log else mean

    def losses(self, raw: Tensor, target: Tensor) -> Tensor:
        """Cross entropy of `raw` [..., bins] against `target` [...], per sample [...]."""
        target = symlog(target) if self.symmetric_log else target
        return -(self.two_hot(target) * full_precision(raw).log_softmax(-1)).sum(-1)

    def losses_and_gradient(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """`losses`, and the gradient [..., bins] of their sum with respect to `raw`."""
        log_p = full_precision(raw).log_softmax(-1)
        two_hot = self.two_hot(target)
        losses = (two_hot * log_p).sum(-1).neg_()
        return losses, log_p.exp_().sub_(two_hot)

    def value_gradient(self, raw: Tensor, values: Tensor, gradient: Tensor) -> Tensor:
        """The gradient [..., bins] with respect to `raw`, from that [...] of its `values`."""
        softmax = full_precision(raw).softmax(-1)
        # d (p . z) / d logit_i = p_i (z_i - p . z)
        return softmax.mul_(self.support - values[..., None]).mul_(gradient[..., None])

    def two_hot(self, values: Tensor) -> Tensor:
        """[...] -> [..., bins]: the weights of the two neighbouring bins whose mean is the value; values
        outside are clipped (Bellemare et al. 2017, eq. 7, for one atom).
        """
        support = self.support
        step = (support[-1] - support[0]) / (len(support) - 1)
        inside = values.clamp(support[0], support[-1])[..., None]
        # each bin weighs 1 - distance / step, at least 0
        return (inside - support).div_(step).abs_().neg_().add_(1.0).clamp_(min=0.0)


def symlog(value: torch.Tensor) -> torch.Tensor:
    """sign(x) ln(1 + |x|)"""
    return value.sign() * value.abs().log1p()


def symexp(value: torch.Tensor) -> torch.Tensor:
    """sign(x) (exp |x| - 1), the inverse of symlog."""
    return value.sign() * value.abs().expm1()


ValueHead = ScalarValueHead | CategoricalValueHead
