"""Losses and targets per sample, before any weighting over tasks. Shapes end in [..., B] unless said."""

from __future__ import annotations

import torch


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


def temperature_loss(
    log_temperature: torch.Tensor, entropy: torch.Tensor, target_entropy: torch.Tensor
) -> torch.Tensor:
    """log alpha (H - H_target) per task [K], for the policy's mean entropy [K] without gradient: raises
    alpha where the entropy is below its target (SAC, equation 18, in the form in log alpha).
    """
    return log_temperature * (entropy - target_entropy)
