"""Which experts a sample passes, how their outputs are weighted, and how their loads stay even."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..layers import BatchedLinear, Leading
from .config import ExpertsConfig


@dataclass(frozen=True)
class Routing:
    """The choice of one call."""

    chosen: torch.Tensor
    """Indices of the chosen experts, [N, K, B, k]."""
    weights: torch.Tensor
    """Their weights, differentiable in the router, [N, K, B, k]."""
    experts: int
    """E."""

    def gates(self) -> torch.Tensor:
        """[N, K, B, E], zero for experts that were not chosen."""
        empty = self.weights.new_zeros(*self.weights.shape[:-1], self.experts)
        return empty.scatter(-1, self.chosen, self.weights)

    def mask(self) -> torch.Tensor:
        """[N, K, B, E], True where an expert was chosen."""
        empty = torch.zeros(
            *self.chosen.shape[:-1], self.experts, dtype=torch.bool, device=self.chosen.device
        )
        return empty.scatter(-1, self.chosen, True)


class Router(nn.Module):
    """s = softmax(W_t e_k + W_s h); the k largest of s + b are chosen and weighted by s alone.

    The bias b evens out loads without an auxiliary loss (Wang et al. 2024, arXiv 2408.15664):
    b_i += u sign(mean load - load_i). It stands outside the gradient, so the router learns from the
    return only. Loads are averaged over updates, since batches of control are small.
    """

    bias: torch.Tensor
    load: torch.Tensor
    pending: torch.Tensor

    def __init__(
        self,
        config: ExpertsConfig,
        leading: Leading,
        width: int,
        embedding: int,
        generator: torch.Generator | None = None,
    ) -> None:
        """`width` and `embedding` are the lengths of h and e_k."""
        super().__init__()
        self.config = config
        self.by_task: BatchedLinear | None = None
        self.by_state: BatchedLinear | None = None
        count = config.routed
        if config.gate != "state":
            self.by_task = BatchedLinear(leading, embedding, count, bound=1e-2, generator=generator)
        if config.gate != "task":
            self.by_state = BatchedLinear(leading, width, count, bound=1e-2, generator=generator)
        self.balanced = config.balance > 0 and config.gate != "task" and config.chosen < count
        self.register_buffer("bias", torch.zeros(*leading, count))
        self.register_buffer("load", torch.full((*leading, count), 1.0 / count))
        self.register_buffer("pending", torch.zeros(*leading, count))

    def forward(self, hidden: torch.Tensor, embedding: torch.Tensor) -> Routing:
        """hidden [N, K, B, width], embedding [N, K, 1, e]"""
        logits = torch.zeros((), device=hidden.device)
        if self.by_task is not None:
            logits = logits + self.by_task(embedding)
        if self.by_state is not None:
            logits = logits + self.by_state(hidden)
        scores = torch.softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)
        preference = scores.detach() + self.bias[:, None, None]
        chosen = preference.topk(self.config.chosen, dim=-1).indices
        weights = scores.gather(-1, chosen)
        if self.config.renormalise:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        shape = (*hidden.shape[:-1], self.config.chosen)
        routing = Routing(chosen.expand(shape), weights.expand(shape), self.config.routed)
        if self.balanced and self.training and torch.is_grad_enabled():
            self.pending += routing.mask().sum(dim=(1, 2))
        return routing

    @torch.no_grad()
    def update_balance(self) -> None:
        """Takes the loads of the training forwards since the last call into b; no-op without any."""
        if not self.balanced:
            return
        total = self.pending.sum(dim=-1, keepdim=True)
        fresh = self.pending / total.clamp_min(1.0)
        decay = self.config.load_decay
        self.load.copy_(torch.where(total > 0, decay * self.load + (1.0 - decay) * fresh, self.load))
        step = self.config.balance * torch.sign(self.load.mean(dim=-1, keepdim=True) - self.load)
        self.bias += torch.where(total > 0, step, torch.zeros_like(step))
        self.pending.zero_()
