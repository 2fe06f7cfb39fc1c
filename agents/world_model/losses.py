"""The losses of the world model as functions of tensors; all are task-major, times T steps [T, K, B]."""

from __future__ import annotations

import torch


def mean_by_task(losses: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """sum(weight x loss) / sum(weight) of every task: [T, K, B] or [K, B] -> [K]; 0 without any weight."""
    summed = (losses * weight).sum(-1)
    total = weight.sum(-1)
    if losses.dim() == 3:
        summed, total = summed.sum(0), total.sum(0)
    return summed / total.clamp_min(1e-8)


def bootstrap_index(weight: torch.Tensor) -> torch.Tensor:
    """[T, K, B] weights -> [K, B], the observation after the last real step: where returns bootstrap."""
    return (weight > 0).sum(0)


def n_step_targets(
    reward: torch.Tensor,
    terminated: torch.Tensor,
    weight: torch.Tensor,
    value: torch.Tensor,
    discount: torch.Tensor,
) -> torch.Tensor:
    """Returns G_t = r_t + g (1 - terminated_t) G_(t+1), which end in `value` after the last real step.

    reward, terminated, weight [T, K, B]; value [K, B], of the observation that `bootstrap_index` names;
    discount [K, 1]. A termination ends the return, a truncation or the end of the sequence bootstraps
    (Pardo et al. 2018, arXiv 1712.00378, section 3).
    """
    following, targets = value, []
    for t in range(len(reward) - 1, -1, -1):
        found = reward[t] + discount * (1.0 - terminated[t]) * following
        # past the end of an episode the value waits for the last real step
        following = torch.where(weight[t] > 0, found, following)
        targets.append(following)
    return torch.stack(targets[::-1])


def continuous_policy_loss(
    q: torch.Tensor, log_probability: torch.Tensor, temperature: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """alpha log pi(a|z) - Q(z, a) / S for a ~ pi, [K, B] (Haarnoja et al. 2018, equation 7); temperature and
    scale S [K, 1].

    The density is taken after the squash, where the entropy bonus acts.
    """
    return temperature * log_probability - q / scale


def discrete_policy_loss(
    q: torch.Tensor,
    probability: torch.Tensor,
    log_probability: torch.Tensor,
    temperature: torch.Tensor,
    scale: torch.Tensor,
) -> torch.Tensor:
    """sum_a p(a) (alpha log p(a) - Q(z, a) / S), the exact expectation (Christodoulou 2019, eq. 12).

    q, probability, log_probability [K, B, n] -> [K, B].
    """
    each = temperature[..., None] * log_probability - q / scale[..., None]
    return (probability * each).sum(-1)


def cloning_weight(q: torch.Tensor, planned: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """softmax(Q / S) over the planned samples of a task, times their number: [K, B], mean 1 where planned.

    Among the samples of one task only: returns of tasks are no measure of each other.
    """
    scores = (q / scale).masked_fill(~planned, -torch.inf)
    shares = torch.softmax(scores, dim=-1)
    count = planned.sum(-1, keepdim=True)
    return torch.where(planned, shares, torch.zeros_like(shares)).nan_to_num(0.0) * count
