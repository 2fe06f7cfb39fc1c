"""Losses and targets per sample, before any weighting over tasks. Shapes end in [..., B] unless said."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mtrl.nn import wide

LOG_2 = math.log(2.0)
LOG_2_PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class ActionDimensions:
    """Which dimensions of a batch's actions are there, and what follows from that alone."""

    mask: torch.Tensor | None
    """[K_c, 1, A_max], 1 where the task has the dimension; None where every task has all of them."""
    constant: torch.Tensor
    """[K_c, 1], what the number of dimensions alone adds to the log density of `squashed_gaussian`."""

    @staticmethod
    def of(mask: torch.Tensor) -> ActionDimensions:
        """For the rows [K_c, A_max] of tasks that act by vectors."""
        constant = mask.sum(1, keepdim=True) * -(0.5 * LOG_2_PI + 2.0 * LOG_2)
        return ActionDimensions(None if bool((mask == 1).all()) else mask[:, None], constant)

    def of_rows(self, rows: torch.Tensor) -> ActionDimensions:
        """Of the rows [K_c] where `rows` is True."""
        return ActionDimensions(None if self.mask is None else self.mask[rows], self.constant[rows])

    def to(self, device: torch.device) -> ActionDimensions:
        """The same on another device."""
        mask = None if self.mask is None else self.mask.to(device)
        return ActionDimensions(mask, self.constant.to(device))

    def masked(self, values: torch.Tensor) -> torch.Tensor:
        """[K_c, B, A_max] with 0 in dimensions that are not there."""
        return values if self.mask is None else values * self.mask


def two_hot(values: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """[...] -> [..., bins]: the weights of the two neighbours in the even `support` [bins] whose mean is
    the value; values outside are clipped (Bellemare et al. 2017, equation 7, for one atom).
    """
    bins = len(support)
    step = (support[-1] - support[0]) / (bins - 1)
    inside = values.clamp(support[0], support[-1])[..., None]
    # a triangle of one step to either side of the value, read off at the support
    return (inside - support).div_(step).abs_().neg_().add_(1.0).clamp_(min=0.0)


def expected_value(logits: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """[..., bins] -> [...], the mean of the categorical distribution."""
    return wide(logits).softmax(-1) @ support


def categorical_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the prediction [..., bins] against a distribution such as `two_hot`; gives [...]."""
    return -(target * wide(logits).log_softmax(-1)).sum(-1)


def scalar_loss(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Half the squared error (SAC, equation 5)."""
    return 0.5 * (predicted - target).square()


def bootstrapped(
    reward: torch.Tensor, final: torch.Tensor, following: torch.Tensor, discount: float
) -> torch.Tensor:
    """r + gamma (1 - final) V(s') (SAC, equation 3). `final` is termination; a truncated step bootstraps."""
    return torch.add(reward, following.masked_fill(final, 0.0), alpha=discount)


def soft_value(value: torch.Tensor, log_probability: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """V(s) = Q(s, a) - alpha log pi(a|s) for one drawn action (SAC, equation 3)."""
    return torch.addcmul(value, temperature, log_probability, value=-1.0)


def discrete_soft_value(
    values: torch.Tensor, log_policy: torch.Tensor, temperature: torch.Tensor
) -> torch.Tensor:
    """V(s) = sum_a pi(a|s) (Q(s, a) - alpha log pi(a|s)), [..., B, A] -> [..., B] (Christodoulou 2019,
    equation 10). Illegal actions have log probability -inf and count nothing.
    """
    policy = log_policy.exp()
    terms = values - temperature[..., None] * log_policy.clamp_min(-1e8)
    return (policy * terms).masked_fill(log_policy == -torch.inf, 0.0).sum(-1)


def squashed(
    mean: torch.Tensor, log_deviation: torch.Tensor, noise: torch.Tensor, dimensions: ActionDimensions
) -> torch.Tensor:
    """Action tanh(mean + deviation * noise) [K_c, B, A]; dimensions that are not there are 0."""
    return dimensions.masked(torch.addcmul(mean, log_deviation.exp(), noise).tanh())


def squashed_gaussian(
    mean: torch.Tensor, log_deviation: torch.Tensor, noise: torch.Tensor, dimensions: ActionDimensions
) -> tuple[torch.Tensor, torch.Tensor]:
    """Action tanh(mean + deviation * noise) [K_c, B, A] and its log density [K_c, B] over the dimensions that
    are there; the others are 0.

    log pi = sum log N(u) - log(1 - tanh(u)^2), with the last term as 2 (log 2 - u - softplus(-2u)), which
    stays finite for large u (SAC, appendix C, equation 26).
    """
    drawn = torch.addcmul(mean, log_deviation.exp(), noise)
    # before the tanh: the order in which autograd adds up what `drawn` receives decides the last bit
    log_probability = squashed_density(drawn, log_deviation, noise, dimensions)
    return dimensions.masked(drawn.tanh()), log_probability


def squashed_density(
    drawn: torch.Tensor, log_deviation: torch.Tensor, noise: torch.Tensor, dimensions: ActionDimensions
) -> torch.Tensor:
    """log pi [K_c, B] of tanh(drawn), `drawn` = mean + deviation * noise; see `squashed_gaussian`."""
    # softplus(-2u) is -2 times softplus of u with beta -2
    bent = torch.add(drawn, F.softplus(drawn, beta=-2.0), alpha=-2.0)
    spread = torch.add(log_deviation, bent, alpha=-2.0)
    # minus the log density, but for its constant
    surprise = torch.addcmul(spread, noise, noise, value=0.5)
    return dimensions.constant - dimensions.masked(surprise).sum(-1)


def temperature_loss(
    log_temperature: torch.Tensor, entropy: torch.Tensor, target_entropy: torch.Tensor
) -> torch.Tensor:
    """log alpha (H - H_target) per task [K], for the policy's mean entropy [K] without gradient: raises
    alpha where the entropy is below its target (SAC, equation 18, in the form in log alpha).
    """
    return log_temperature * (entropy - target_entropy)
