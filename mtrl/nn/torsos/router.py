"""Which experts a sample passes, how their outputs are weighted, and how their loads stay even."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..distributions import full_precision
from ..layers import BatchedLinear, Leading
from .config import ExpertsConfig


@dataclass(frozen=True)
class ExpertChoice:
    """The experts that one forward pass chose, and their weights."""

    chosen: Tensor
    """Indices of the chosen experts, [N, K, B, k]."""
    weights: Tensor
    """Their weights, differentiable in the router, [N, K, B, k]."""
    experts: int
    """E, the number of experts."""

    def gates(self) -> Tensor:
        """[N, K, B, E], zero for experts that were not chosen."""
        empty = self.weights.new_zeros(*self.weights.shape[:-1], self.experts)
        return empty.scatter(-1, self.chosen, self.weights)

    def mask(self) -> Tensor:
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

    With `groups`, a task has the experts of its group and the common ones (HoME's hierarchy mask, Wang et
    al. 2024, arXiv 2408.05430): others get s = 0, and loads are evened out within each block.
    """

    allowed: Tensor
    """[T, E], True where the task may choose the expert."""
    block: Tensor
    """[E], the group that an expert serves; common experts are a block of their own."""
    bias: Tensor
    load: Tensor
    pending: Tensor

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
        self.auxiliary: Tensor | None = None
        self.masked = bool(config.groups)
        self._divide(config)
        self.register_buffer("bias", torch.zeros(*leading, count))
        self.register_buffer("load", torch.full((*leading, count), 1.0 / count))
        self.register_buffer("pending", torch.zeros(*leading, count))

    def _divide(self, config: ExpertsConfig) -> None:
        # the common experts come first, then each group's in order
        groups = torch.tensor(config.groups or (0,))
        common = config.common if config.groups else 0
        own = (config.routed - common) // (int(groups.max()) + 1)
        block = (torch.arange(config.routed) - common).div(own or 1, rounding_mode="floor").clamp_min(-1)
        self.register_buffer("block", block, persistent=False)
        self.register_buffer("allowed", (block == -1) | (block == groups[:, None]), persistent=False)

    def forward(self, hidden: Tensor, embedding: Tensor, task_index: Tensor | None = None) -> ExpertChoice:
        """hidden [N, K, B, width], embedding [N, K, 1, e]; task_index [K] is read with `groups` alone."""
        logits = torch.zeros((), device=hidden.device)
        if self.by_task is not None:
            logits = logits + self.by_task(embedding)
        if self.by_state is not None:
            logits = logits + self.by_state(hidden)
        logits = full_precision(logits)
        masked = None
        if self.masked:
            assert task_index is not None, "expected task_index, which `groups` needs"
            masked = ~self.allowed[task_index].unsqueeze(1)
            logits = logits.masked_fill(masked, -torch.inf)
        scores = torch.softmax(logits, dim=-1)
        preference = scores.detach() + self.bias[:, None, None]
        if masked is not None:
            preference = preference.masked_fill(masked, -torch.inf)
        chosen = preference.topk(self.config.chosen, dim=-1).indices
        weights = scores.gather(-1, chosen)
        if self.config.renormalise:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        shape = (*hidden.shape[:-1], self.config.chosen)
        choice = ExpertChoice(chosen.expand(shape), weights.expand(shape), self.config.routed)
        if self.training and torch.is_grad_enabled():
            if self.balanced:
                self.pending += choice.mask().sum(dim=(1, 2))
            if self.config.switch:
                self.auxiliary = self._switch_loss(scores, choice)
        return choice

    def _switch_loss(self, scores: Tensor, choice: ExpertChoice) -> Tensor:
        # a E sum_i f_i p_i (Switch, Fedus et al. 2021, equation 4): f the share of choices, a constant; p the
        # mean score, which has the gradient
        share = choice.mask().to(scores.dtype).mean(dim=(1, 2)) / self.config.chosen
        mean = scores.expand(*choice.chosen.shape[:-1], -1).mean(dim=(1, 2))
        return self.config.switch * self.config.routed * (share * mean).sum()

    @torch.no_grad()
    def update_balance(self) -> None:
        """Takes the loads of the training forwards since the last call into b; no-op without any."""
        if not self.balanced:
            return
        total = self.pending.sum(dim=-1, keepdim=True)
        fresh = self.pending / total.clamp_min(1.0)
        decay = self.config.load_decay
        self.load.copy_(torch.where(total > 0, decay * self.load + (1.0 - decay) * fresh, self.load))
        step = self.config.balance * torch.sign(self._even() - self.load)
        self.bias += torch.where(total > 0, step, torch.zeros_like(step))
        self.pending.zero_()

    def _even(self) -> Tensor:
        """[N, E] or [N, 1], the load that each expert has when those of its block have equal ones."""
        if not self.masked:
            return self.load.mean(dim=-1, keepdim=True)
        even = torch.empty_like(self.load)
        for block in self.block.unique():
            members = self.block == block
            even[..., members] = self.load[..., members].mean(dim=-1, keepdim=True)
        return even
