"""Distributions over actions and values, with the event on the last axis.

Everything is computed in float32 or wider, whatever the network computed in.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

from mtrl.errors import SpaceError

LOG_TWO_PI = math.log(2.0 * math.pi)


class Gaussian:
    """Independent normals, N(mean, std^2) per dimension; masked dimensions do not exist."""

    def __init__(self, mean: torch.Tensor, log_std: torch.Tensor, mask: torch.Tensor | None = None) -> None:
        """mean and log_std [..., A]; mask broadcastable to them, False in padded dimensions."""
        self.mean = wide(mean)
        self.log_std = wide(log_std)
        self.mask = torch.ones_like(self.mean) if mask is None else mask.to(self.mean.dtype)

    def mode(self) -> torch.Tensor:
        """The most likely action [..., A], zero in masked dimensions."""
        return self.mean * self.mask

    def sample(self, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Action [..., A] and its log-probability [...], both differentiable in mean and log_std."""
        noise = self._noise(generator)
        return (self.mean + self.log_std.exp() * noise) * self.mask, self._normal(noise)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """[..., A] -> [...]"""
        return self._normal((wide(action) - self.mean) * (-self.log_std).exp())

    def entropy(self) -> torch.Tensor:
        """In nats, [...]."""
        return ((0.5 + 0.5 * LOG_TWO_PI + self.log_std) * self.mask).sum(-1)

    def _noise(self, generator: torch.Generator | None) -> torch.Tensor:
        return torch.randn(
            self.mean.shape, generator=generator, dtype=self.mean.dtype, device=self.mean.device
        )

    def _normal(self, noise: torch.Tensor) -> torch.Tensor:
        each = -0.5 * noise.square() - self.log_std - 0.5 * LOG_TWO_PI
        return (each * self.mask).sum(-1)


class TanhGaussian(Gaussian):
    """a = tanh(u), u normal per dimension: bounded actions with an exact density
    (Haarnoja et al. 2018, arXiv 1812.05905, appendix C).
    """

    limit = 1.0 - 1e-6
    """Actions handed to `log_prob` are clipped to this size: float32 rounds tanh(9) to 1."""

    def mode(self) -> torch.Tensor:
        """tanh(mean) [..., A]: the median, which stands for the deterministic action."""
        return torch.tanh(self.mean) * self.mask

    def sample(self, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Action in (-1, 1) [..., A] and its log-probability [...], computed from u and so exact even
        where tanh saturates; both differentiable.
        """
        noise = self._noise(generator)
        before = self.mean + self.log_std.exp() * noise
        stretch = (log_slope(before) * self.mask).sum(-1)
        return torch.tanh(before) * self.mask, self._normal(noise) - stretch

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """[..., A] in [-1, 1] -> [...]"""
        before = torch.atanh(wide(action).clamp(-self.limit, self.limit))
        noise = (before - self.mean) * (-self.log_std).exp()
        return self._normal(noise) - (log_slope(before) * self.mask).sum(-1)

    def entropy(self, points: int = 64) -> torch.Tensor:
        """H[u] + E log(1 - tanh(u)^2) in nats, [...]; the expectation by Gauss-Hermite quadrature, so
        that it is deterministic and differentiable.
        """
        nodes, weights = np.polynomial.hermite_e.hermegauss(points)
        at = torch.as_tensor(nodes, dtype=self.mean.dtype, device=self.mean.device)
        share = torch.as_tensor(
            weights / math.sqrt(2.0 * math.pi), dtype=self.mean.dtype, device=self.mean.device
        )
        before = self.mean[..., None] + self.log_std.exp()[..., None] * at
        stretch = (log_slope(before) * share).sum(-1)
        return super().entropy() + (stretch * self.mask).sum(-1)


class Categorical:
    """One of n actions, of which a mask says which are legal."""

    def __init__(self, logits: torch.Tensor, legal: torch.Tensor | None = None) -> None:
        """logits [..., n]; legal broadcastable, True where allowed. A row without any legal action (a
        task that acts otherwise) has probability and entropy 0 everywhere, and no gradient.
        """
        logits = wide(logits)
        self.legal = torch.ones_like(logits, dtype=torch.bool) if legal is None else legal.expand_as(logits)
        lowest = torch.finfo(logits.dtype).min
        self.log_probabilities = torch.log_softmax(logits.masked_fill(~self.legal, lowest), dim=-1)

    @property
    def probabilities(self) -> torch.Tensor:
        """[..., n], exactly 0 where illegal."""
        return self.log_probabilities.exp() * self.legal

    def mode(self) -> torch.Tensor:
        """Index of the most likely legal action, [...], int64."""
        return self.log_probabilities.argmax(-1)

    def sample(self, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Index [...] int64 and its log-probability [...], which is differentiable."""
        shape = self.log_probabilities.shape
        weights = self.log_probabilities.detach().exp().reshape(-1, shape[-1])
        index = torch.multinomial(weights, 1, generator=generator).reshape(shape[:-1])
        return index, self.log_prob(index)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """Index [...] -> [...]; -inf-like (the format's lowest number) where illegal."""
        return self.log_probabilities.gather(-1, action[..., None].long()).squeeze(-1)

    def entropy(self) -> torch.Tensor:
        """In nats, [...]."""
        return -(self.probabilities * self.log_probabilities.masked_fill(~self.legal, 0.0)).sum(-1)


class TwoHot:
    """A real number as a distribution over evenly spaced bins (Bellemare et al. 2017; Hafner et al. 2023,
    arXiv 2301.04104): a number between two centres is shared by both in proportion to its nearness.
    """

    def __init__(self, logits: torch.Tensor, centres: torch.Tensor, symmetric_log: bool = False) -> None:
        """logits [..., n], centres [n] ascending and evenly spaced, in symlog units when asked."""
        if centres.shape != logits.shape[-1:] or len(centres) < 2:
            raise SpaceError(f"{logits.shape[-1]} logits need as many centres; got {list(centres.shape)}")
        self.logits = wide(logits)
        self.centres = centres.to(self.logits.dtype)
        self.symmetric_log = symmetric_log

    @property
    def probabilities(self) -> torch.Tensor:
        """[..., n]"""
        return torch.softmax(self.logits, dim=-1)

    def mean(self) -> torch.Tensor:
        """The value it stands for, [...]."""
        return self._outside((self.probabilities * self.centres).sum(-1))

    def mode(self) -> torch.Tensor:
        """The value of the most likely bin, [...]."""
        return self._outside(self.centres[self.logits.argmax(-1)])

    def sample(self, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The value of a bin drawn from the distribution and its log-probability, [...] each."""
        index, log_probability = Categorical(self.logits).sample(generator)
        return self._outside(self.centres[index]), log_probability

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """[...] -> [...]: minus the cross-entropy to the two-hot target. Values beyond the outermost
        centres count as those.
        """
        low, upper_share = self._place(value)
        logs = torch.log_softmax(self.logits, dim=-1)
        below = logs.gather(-1, low[..., None]).squeeze(-1)
        above = logs.gather(-1, low[..., None] + 1).squeeze(-1)
        return (1.0 - upper_share) * below + upper_share * above

    def entropy(self) -> torch.Tensor:
        """In nats, [...]."""
        return Categorical(self.logits).entropy()

    def target(self, value: torch.Tensor) -> torch.Tensor:
        """The two-hot target [..., n] of values [...]."""
        low, upper_share = self._place(value)
        target = upper_share.new_zeros(*low.shape, len(self.centres))
        target.scatter_(-1, low[..., None], 1.0 - upper_share[..., None])
        return target.scatter_(-1, low[..., None] + 1, upper_share[..., None])

    def _place(self, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inside = symlog(wide(value)) if self.symmetric_log else wide(value)
        last = len(self.centres) - 1
        first, spacing = self.centres[0], (self.centres[-1] - self.centres[0]) / last
        position = ((inside - first) / spacing).clamp(0.0, float(last))
        low = position.floor().clamp(max=last - 1)
        return low.long(), position - low

    def _outside(self, value: torch.Tensor) -> torch.Tensor:
        return symexp(value) if self.symmetric_log else value


def symlog(value: torch.Tensor) -> torch.Tensor:
    """sign(x) ln(1 + |x|)"""
    return value.sign() * value.abs().log1p()


def symexp(value: torch.Tensor) -> torch.Tensor:
    """sign(x) (exp |x| - 1), the inverse of symlog."""
    return value.sign() * value.abs().expm1()


def log_slope(before: torch.Tensor) -> torch.Tensor:
    """log(1 - tanh(u)^2) = 2 (ln 2 - |u| - ln(1 + exp(-2|u|))), which nowhere rounds to log 0."""
    size = before.abs()
    return 2.0 * (math.log(2.0) - size - functional.softplus(-2.0 * size))


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """At least float32, in which losses are computed."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
