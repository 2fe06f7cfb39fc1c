"""Measures of a mixture: loads, entropies, similarity, dormancy, specialisation.

Functions take detached tensors as `Torso.record` collects them and return plain tensors; none of them
has a gradient. Gates are [..., K, B, E] with rows that sum to 1 (or to less, where a router does not
renormalise: they are scaled to 1 here).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .torsos.base import Torso


def expert_load(gates: Tensor) -> Tensor:
    """[..., K, B, E] -> [..., E]: the share of samples that give each expert any weight, divided by the
    experts per sample, so that an even load is 1 / E and loads sum to 1.
    """
    used = (gates != 0).to(torch.float64).sum(dim=(-3, -2))
    return used / used.sum(dim=-1, keepdim=True).clamp_min(1.0)


def load_variation(load: Tensor) -> Tensor:
    """Standard deviation of the loads [..., E] over their mean, [...]; 0 is even."""
    return load.std(dim=-1, correction=0) / load.mean(dim=-1)


def gate_entropy(gates: Tensor) -> Tensor:
    """Mean over samples of -sum_e p_e ln p_e / ln E, [...] in [0, 1], p the gates (entropy, Shannon 1948): 0
    one expert, 1 all alike.
    """
    share = _shares(gates)
    return torch.special.entr(share).sum(-1).mean(dim=(-2, -1)) / math.log(gates.shape[-1])


def task_expert_information(gates: Tensor) -> Tensor:
    """Mutual information of task and expert in nats, [...], sum p(k, e) ln(p(k, e) / (p(k) p(e))) with p(k) =
    1 / K (Cover and Thomas 2006, section 2.3).

    0: every task uses the experts in the same way; at most min(ln K, ln E): each task has its own.
    """
    joint = _shares(gates).mean(dim=-2) / gates.shape[-3]
    independent = joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)
    return (torch.special.xlogy(joint, joint) - torch.special.xlogy(joint, independent)).sum(dim=(-2, -1))


def expert_cosine(outputs: Tensor) -> Tensor:
    """[..., E, K, B, d] -> [..., E, E], cosine of two experts' outputs, averaged over samples.

    Off the diagonal, 1 means copies of each other, 0 is what MOORE enforces.
    """
    unit = torch.nn.functional.normalize(outputs.detach().double(), dim=-1).flatten(-3, -2)
    samples = unit.shape[-2]
    flat = unit.flatten(-2)
    return flat @ flat.mT / samples


def dormant_fraction(hidden: Tensor, threshold: float = 0.025) -> Tensor:
    """Share of dormant units of a layer, [..., K, B, d] -> [...] (Sokar et al. 2023, arXiv 2302.12902,
    equation 1: a unit's mean size over the layer's mean, at most `threshold`, there 0.025).
    """
    size = hidden.detach().abs().double().mean(dim=(-3, -2))
    score = size / size.mean(dim=-1, keepdim=True).clamp_min(1e-30)
    return (score <= threshold).double().mean(dim=-1)


@torch.no_grad()
def torso_diagnostics(
    torso: Torso, features: Tensor | tuple[Tensor, ...], task_index: Tensor, embedding: Tensor | None = None
) -> dict[str, float]:
    """One forward, measured: the mean over ensemble members of every figure that the torso has.

    Keys: `dormant_units` (mean over layers), and for mixtures, layer by layer, `gate_entropy/L`,
    `task_expert_information/L`, `expert_load_min/L`, `expert_load_max/L`, `load_variation/L` and
    `expert_cosine/L` (mean off the diagonal).
    """
    with torso.record() as records:
        torso(features, task_index, embedding)
    metrics: dict[str, float] = {}
    layers = [value for name, value in records if name == "hidden"]
    if layers:
        shares = torch.stack([dormant_fraction(layer).mean() for layer in layers])
        metrics["dormant_units"] = float(shares.mean())
    for layer, gates in enumerate(value for name, value in records if name == "gates"):
        load = expert_load(gates)
        metrics[f"gate_entropy/{layer}"] = float(gate_entropy(gates).mean())
        metrics[f"task_expert_information/{layer}"] = float(task_expert_information(gates).mean())
        metrics[f"expert_load_min/{layer}"] = float(load.min(dim=-1).values.mean())
        metrics[f"expert_load_max/{layer}"] = float(load.max(dim=-1).values.mean())
        metrics[f"load_variation/{layer}"] = float(load_variation(load).mean())
    for layer, outputs in enumerate(value for name, value in records if name == "experts"):
        cosine = expert_cosine(outputs)
        count = cosine.shape[-1]
        off = cosine.sum(dim=(-2, -1)) - cosine.diagonal(dim1=-2, dim2=-1).sum(-1)
        metrics[f"expert_cosine/{layer}"] = float((off / max(count * (count - 1), 1)).mean())
    return metrics


def _shares(gates: Tensor) -> Tensor:
    size = gates.detach().double().abs()
    return size / size.sum(dim=-1, keepdim=True).clamp_min(1e-30)
