"""Objectives by decision; nothing here has weights."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_objective(
    log_probability: Tensor, before: Tensor, advantage: Tensor, low: float, high: float
) -> Tensor:
    """min(r A, clip(r, 1 - low, 1 + high) A) with r = pi(a|s) / pi_behaviour(a|s), elementwise (Schulman et
    al. 2017, equation 7; bounds apart as in DAPO, arXiv 2503.14476, equation 10).
    """
    ratio = (log_probability - before).exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1.0 - low, 1.0 + high) * advantage)


def reference_divergence(log_probability: Tensor, reference: Tensor) -> Tensor:
    """exp(d) - d - 1 with d = log pi_ref(a|s) - log pi(a|s), an estimate of KL(pi | pi_ref) that is never
    negative (Shao et al. 2024, equation 4).
    """
    d = reference - log_probability
    return d.exp() - d - 1.0


def entropy_penalty(entropy: Tensor, mean: Tensor, band: tuple[float, float]) -> Tensor:
    """relu(low H_mean - H) + relu(H - high H_mean), elementwise: EPO's band (arXiv 2509.22576) as a hinge,
    since its released program penalises by a constant, which has no gradient. The band lies around a
    differential entropy below 0 too. `mean` is NaN where nothing is known, which costs nothing.
    """
    lowest = mean - (1.0 - band[0]) * mean.abs()
    highest = mean + (band[1] - 1.0) * mean.abs()
    penalty = torch.relu(lowest - entropy) + torch.relu(entropy - highest)
    return penalty.where(~mean.isnan(), torch.zeros_like(penalty))


def weighted_sums(values: Tensor, weight: Tensor) -> Tensor:
    """[K, B] each -> [K], sum_b w_kb v_kb; padding of weight 0 may hold anything."""
    return (weight * values.where(weight > 0, torch.zeros_like(values))).sum(1)
