"""Losses and targets per sample, before any weighting over tasks. Shapes end in [..., B] unless said."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

LOG_2 = math.log(2.0)
LOG_2_PI = math.log(2.0 * math.pi)


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
    return logits.float().softmax(-1) @ support


def categorical_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the prediction [..., bins] against a distribution such as `two_hot`; gives [...]."""
    return -(target * logits.float().log_softmax(-1)).sum(-1)


def scalar_loss(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Half the squared error (SAC, equation 5)."""
    return 0.5 * (predicted - target) ** 2


def bootstrapped(
    reward: torch.Tensor, final: torch.Tensor, following: torch.Tensor, discount: float
) -> torch.Tensor:
    """r + gamma (1 - final) V(s') (SAC, equation 3). `final` is termination; a truncated step bootstraps."""
    return torch.add(reward, following.masked_fill(final, 0.0), alpha=discount)


def soft_value(value: torch.Tensor, log_probability: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """V(s) = Q(s, a) - alpha log pi(a|s) for one drawn action (SAC, equation 3)."""
    return value - temperature * log_probability


def discrete_soft_value(
    values: torch.Tensor, log_policy: torch.Tensor, temperature: torch.Tensor
) -> torch.Tensor:
    """V(s) = sum_a pi(a|s) (Q(s, a) - alpha log pi(a|s)), [..., B, A] -> [..., B] (Christodoulou 2019,
    equation 10). Illegal actions have log probability -inf and count nothing.
    """
    policy = log_policy.exp()
    terms = values - temperature[..., None] * log_policy.clamp_min(-1e8)
    return (policy * terms).where(policy > 0, 0.0).sum(-1)


def squashed(
    mean: torch.Tensor, log_deviation: torch.Tensor, noise: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Action tanh(mean + deviation * noise) [..., A]; masked dimensions are 0."""
    return torch.addcmul(mean, log_deviation.exp(), noise).tanh() * mask


def squashed_gaussian(
    mean: torch.Tensor, log_deviation: torch.Tensor, noise: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Action tanh(mean + deviation * noise) [..., A] and its log density [...] over unmasked dimensions.

    log pi = sum log N(u) - log(1 - tanh(u)^2), with the last term as 2 (log 2 - u - softplus(-2u)), which
    stays finite for large u (SAC, appendix C, equation 26). Masked dimensions are 0.
    """
    drawn = torch.addcmul(mean, log_deviation.exp(), noise)
    # softplus(-2u) is -2 times softplus of u with beta -2
    bent = torch.add(drawn, F.softplus(drawn, beta=-2.0), alpha=-2.0)
    spread = torch.add(log_deviation, bent, alpha=-2.0)
    known = noise.square().mul_(-0.5).sub_(0.5 * LOG_2_PI + 2.0 * LOG_2)
    log_probability = ((known - spread) * mask).sum(-1)
    return drawn.tanh() * mask, log_probability


def temperature_loss(
    log_temperature: torch.Tensor, entropy: torch.Tensor, target_entropy: torch.Tensor
) -> torch.Tensor:
    """log alpha (H - H_target) per task [K], for the policy's mean entropy [K] without gradient: raises
    alpha where the entropy is below its target (SAC, equation 18, in the form in log alpha).
    """
    return log_temperature * (entropy - target_entropy)
