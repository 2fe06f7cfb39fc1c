"""A mixture of shared and routed experts in residual blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtrl.errors import ConfigError

from ..layers import BatchedLinear, LayerNorm, Leading, Stack, activation_named
from .base import Torso
from .config import ExpertsConfig, TorsoConfig
from .router import ExpertChoice, Router


class ExpertBank(nn.Module):
    """`count` experts as one weight tensor each layer: [N, count, K, C, width] -> the same shape.

    expert(x) = Swish(LayerNorm(W2 act(W1 (x * gate(x))))), gate(x) = 2 sigmoid(x A B) of low rank: HoME's
    parts that prevent unused experts (Wang et al. 2024, arXiv 2408.05430, with LayerNorm instead of
    BatchNorm, which would mix tasks). Without them, W2 act(W1 x). `reduce` and `open` are A and B.
    """

    def __init__(
        self,
        config: ExpertsConfig,
        leading: Leading,
        count: int,
        width: int,
        activation: str,
        generator: torch.Generator | None = None,
    ) -> None:
        """`leading` is (N,)."""
        super().__init__()
        axes = (*leading, count)
        self.reduce: BatchedLinear | None = None
        self.open: BatchedLinear | None = None
        if config.feature_gate:
            rank = config.feature_gate
            self.reduce = BatchedLinear(axes, width, rank, bias=False, generator=generator)
            self.open = BatchedLinear(axes, rank, width, bias=False, bound=0.0, generator=generator)
        self.stack = Stack(
            axes,
            width,
            [config.hidden, width],
            activation=activation,
            activate_last=False,
            generator=generator,
        )
        self.norm = LayerNorm(axes, width) if config.normalised else None

    def forward(self, inputs: Tensor) -> Tensor:
        """[N, count, K, C, width] -> [N, count, K, C, width]"""
        if self.reduce is not None and self.open is not None:
            inputs = inputs * (2.0 * torch.sigmoid(self.open(self.reduce(inputs))))
        outputs = self.stack(inputs)
        return outputs if self.norm is None else nn.functional.silu(self.norm(outputs))


class ExpertsBlock(nn.Module):
    """h + sum_s c_s shared_s(LN h) + sum_i g_i routed_i(LN h), c_s = 1 or HoME's 2 sigmoid(w_s h)."""

    def __init__(
        self, config: TorsoConfig, leading: Leading, embedding: int, generator: torch.Generator | None = None
    ) -> None:
        """`embedding` is the length of the task embedding."""
        super().__init__()
        parts, width = config.experts, config.width
        self.config = parts
        self.norm = LayerNorm(leading, width, affine=config.norm_affine)
        self.router = Router(parts, leading, width, embedding, generator)
        self.routed = ExpertBank(parts, leading, parts.routed, width, config.activation, generator)
        self.shared: ExpertBank | None = None
        self.self_gate: BatchedLinear | None = None
        if parts.shared:
            self.shared = ExpertBank(parts, leading, parts.shared, width, config.activation, generator)
            if parts.self_gate:
                self.self_gate = BatchedLinear(leading, width, parts.shared, bound=0.0, generator=generator)

    def forward(self, hidden: Tensor, task_index: Tensor, embedding: Tensor, torso: Torso) -> Tensor:
        """[N, K, B, width], [K], [N, K, 1, e] -> [N, K, B, width]; `torso` records gates and outputs."""
        normal = self.norm(hidden)
        choice = self.router(normal, embedding, task_index)
        # an exported graph takes one sample at a time; its shapes cannot depend on the data
        if self.config.dispatch == "dense" or torso.recording or torch.onnx.is_in_onnx_export():
            gates = choice.gates()
            outputs = self.routed(_spread(normal, self.config.routed))
            torso.add_record("gates", gates)
            torso.add_record("experts", outputs)
            mixed = _mix(gates, outputs)
        else:
            mixed = packed(self.routed, normal, choice)
        if self.shared is not None:
            always = self.shared(_spread(normal, self.config.shared))
            if self.self_gate is None:
                mixed = mixed + always.sum(dim=1)
            else:
                mixed = mixed + _mix(2.0 * torch.sigmoid(self.self_gate(normal)), always)
        return hidden + mixed


class ExpertsTorso(Torso):
    """Linear, LayerNorm, activation, then `depth` blocks of experts (the placing of ScaleMoE and of
    DeepSeekMoE, arXiv 2401.06066). Its norms are part of the architecture: `layer_norm` is not read.
    """

    natural_output = "task"
    appends_task = True

    def _build(self, generator: torch.Generator | None) -> None:
        config = self.config
        if config.experts.groups and len(config.experts.groups) != self.tasks:
            raise ConfigError(
                f"experts.groups names the group of every task, {self.tasks} of them; got "
                f"{len(config.experts.groups)} numbers"
            )
        self.activate = activation_named(config.activation)
        self.enter = BatchedLinear(self.leading, self.entry, config.width, generator=generator)
        self.enter_norm = LayerNorm(self.leading, config.width, affine=config.norm_affine)
        self.blocks = nn.ModuleList(
            ExpertsBlock(config, self.leading, self.embedding.size, generator) for _ in range(config.depth)
        )

    def transform(self, features: Tensor, task_index: Tensor, embedding: Tensor) -> Tensor:
        """Hidden features after `depth` blocks, each of which chooses its own experts."""
        hidden = self.activate(self.enter_norm(self.enter(features)))
        self.add_record("hidden", hidden)
        for block in self.blocks:
            hidden = block(hidden, task_index, embedding, self)
        return hidden

    def balance_loss(self) -> Tensor | None:
        """Switch's auxiliary loss, summed over blocks and members; None with experts.switch=0."""
        losses: list[Tensor] = []
        for module in self.modules():
            if isinstance(module, Router) and module.auxiliary is not None:
                losses.append(module.auxiliary)
                module.auxiliary = None
        return torch.stack(losses).sum() if losses else None

    def update_balance(self) -> None:
        """Moves each block's selection bias by the loads since the last call."""
        for module in self.modules():
            if isinstance(module, Router):
                module.update_balance()


def packed(bank: nn.Module, hidden: Tensor, choice: ExpertChoice) -> Tensor:
    """The weighted sum over chosen experts, computing each expert only for the samples that chose it.

    Samples are packed within their own task, [N, E, K, C, width] with C the largest number of samples
    that one expert takes from one task, so that tasks stay apart and per-task gradients exact. Unused
    cells are computed and never read. hidden [N, K, B, width] -> [N, K, B, width].
    """
    members, tasks, samples, width = hidden.shape
    mask = choice.mask()
    position = mask.cumsum(dim=2) - 1
    capacity = int(mask.sum(dim=2).max())
    source = hidden.new_zeros(members, tasks, choice.experts, capacity, dtype=torch.int64)
    member, task, sample, expert = mask.nonzero(as_tuple=True)
    source[member, task, expert, position[member, task, sample, expert]] = sample
    taken = hidden.gather(2, source.flatten(2)[..., None].expand(-1, -1, -1, width))
    cells = taken.unflatten(2, (choice.experts, capacity)).movedim(2, 1)
    outputs = bank(cells).movedim(1, 2).flatten(2, 3)
    address = choice.chosen * capacity + position.gather(-1, choice.chosen)
    back = outputs.gather(2, address.flatten(2)[..., None].expand(-1, -1, -1, width))
    selected = back.unflatten(2, (samples, choice.chosen.shape[-1]))
    return (selected * choice.weights.to(selected.dtype)[..., None]).sum(dim=-2)


def _spread(hidden: Tensor, count: int) -> Tensor:
    return hidden.unsqueeze(1).expand(-1, count, -1, -1, -1)


def _mix(gates: Tensor, outputs: Tensor) -> Tensor:
    # [N, K, B, E], [N, E, K, B, d] -> [N, K, B, d]
    return torch.einsum("nkbe,nekbd->nkbd", gates.to(outputs.dtype), outputs)
