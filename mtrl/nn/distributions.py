"""Distributions over actions, with the event on the last axis; computed in float32 or wider."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

LOG_2 = math.log(2.0)
LOG_2_PI = math.log(2.0 * math.pi)


class Gaussian:
    """Independent normals u = mean + std * noise; masked dimensions do not exist."""

    _log_normaliser = 0.5 * LOG_2_PI
    """What every dimension subtracts from the log density."""

    def __init__(self, mean: Tensor, log_std: Tensor, mask: Tensor | None = None) -> None:
        """`mean` and `log_std` [..., A]; `mask` broadcastable to them, 1 where the dimension exists, None for
        all.
        """
        self.mean, self.log_std, self.mask = full_precision(mean), full_precision(log_std), mask

    def mode(self) -> Tensor:
        """The most likely action [..., A], zero in masked dimensions."""
        return self._masked(self.mean)

    def action(self, noise: Tensor) -> Tensor:
        """The action that standard normal `noise` [..., A] draws, differentiable; zero where masked."""
        return self._masked(self._draw(noise))

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """`action(noise)` and its log-probability [...], both differentiable in mean and log_std."""
        drawn = self._draw(noise)
        return self._masked(drawn), self.log_prob(drawn, noise)

    def log_prob(self, drawn: Tensor, noise: Tensor) -> Tensor:
        """Log density [...] of the action of u = `drawn` = mean + std * `noise`, [..., A] each."""
        # -log N(u) = noise^2 / 2 + log std + log(2 pi) / 2
        negative = torch.addcmul(self._log_volume(drawn), noise, noise, value=0.5)
        dimensions = negative.shape[-1] if self.mask is None else self.mask.sum(-1, dtype=negative.dtype)
        return dimensions * -self._log_normaliser - self._masked(negative).sum(-1)

    def _draw(self, noise: Tensor) -> Tensor:
        return torch.addcmul(self.mean, self.log_std.exp(), noise)

    def _log_volume(self, drawn: Tensor) -> Tensor:
        """log |d action / d noise| [..., A], but for a constant that `_log_normaliser` holds."""
        return self.log_std

    def _masked(self, values: Tensor) -> Tensor:
        return values if self.mask is None else values * self.mask


class TanhGaussian(Gaussian):
    """a = tanh(u), u normal: bounded actions with an exact density (Haarnoja et al. 2018, arXiv 1812.05905,
    appendix C).
    """

    _log_normaliser = 0.5 * LOG_2_PI + 2.0 * LOG_2

    def mode(self) -> Tensor:
        """tanh(mean) [..., A]: the median, which stands for the deterministic action."""
        return self._masked(self.mean.tanh())

    def action(self, noise: Tensor) -> Tensor:
        """The action in (-1, 1) that standard normal `noise` [..., A] draws."""
        return self._masked(self._draw(noise).tanh())

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """`action(noise)` and its log-probability [...], exact where tanh saturates; both differentiable."""
        drawn = self._draw(noise)
        # before the tanh: the order in which autograd adds up what `drawn` receives decides the last bit
        log_prob = self.log_prob(drawn, noise)
        return self._masked(drawn.tanh()), log_prob

    def _log_volume(self, drawn: Tensor) -> Tensor:
        # eq. 26: log(1 - tanh(u)^2) = -2 log cosh u = 2 (log 2 - u - softplus(-2u)), finite for large u;
        # softplus(-2u) is -2 times softplus of u with beta -2
        log_2_cosh = torch.add(drawn, functional.softplus(drawn, beta=-2.0), alpha=-2.0)
        return torch.add(self.log_std, log_2_cosh, alpha=-2.0)


def masked_log_softmax(logits: Tensor, legal: Tensor) -> Tensor:
    """Log-probabilities [..., n] of a categorical policy, -inf where `legal` (broadcastable) is False."""
    return full_precision(logits).masked_fill(~legal, -torch.inf).log_softmax(-1)


def draw_index(probabilities: npt.NDArray[np.float64], generator: np.random.Generator) -> int:
    """An index of `probabilities` [n], which need not sum to 1, by inverting the cumulative distribution."""
    return index_at(probabilities, generator.random())


def index_at(probabilities: npt.NDArray[np.float64], uniform: float) -> int:
    """The index of `probabilities` [n] where their cumulative distribution passes `uniform`, in [0, 1)."""
    cumulative = probabilities.cumsum()
    # rounding may leave the last sum below the draw; an index without probability is never drawn
    return int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))


def full_precision(tensor: Tensor) -> Tensor:
    """The tensor in float32 at least, in which densities, values and losses are computed."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
