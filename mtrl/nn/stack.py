"""A multilayer perceptron over leading axes, the piece from which torsos are assembled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from mtrl.errors import UnknownNameError

from .layers import BatchedLinear, LayerNorm, Leading

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": nn.functional.relu,
    "silu": nn.functional.silu,
    "gelu": nn.functional.gelu,
    "elu": nn.functional.elu,
    "tanh": torch.tanh,
}

Note = Callable[[str, torch.Tensor], None]
"""Takes the name and value of something worth measuring; see `Torso.record`."""


def activation_named(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Raises UnknownNameError."""
    if name not in ACTIVATIONS:
        raise UnknownNameError("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


class Stack(nn.Module):
    """Linear, LayerNorm when asked, activation: once for each entry of `widths`."""

    def __init__(
        self,
        leading: Leading,
        inputs: int,
        widths: Sequence[int],
        *,
        activation: str = "relu",
        norm: bool = False,
        affine: bool = True,
        activate_last: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        """Without `activate_last` the last layer is linear, with neither norm nor activation."""
        super().__init__()
        self.activate = activation_named(activation)
        self.in_place = activation == "relu"
        self.linears = nn.ModuleList()
        self.norms = nn.ModuleList()
        for depth, width in enumerate(widths):
            self.linears.append(BatchedLinear(leading, inputs, width, generator=generator))
            if norm and (activate_last or depth < len(widths) - 1):
                self.norms.append(LayerNorm(leading, width, affine=affine))
            inputs = width
        self.outputs = inputs
        self.normed = len(self.norms) > 0
        # an affine norm has weights per leading index, which need the axes of tasks and samples beside them
        self.merges = not (norm and affine)
        self.activated = len(widths) if activate_last else len(widths) - 1

    def forward(self, inputs: torch.Tensor, note: Note | None = None) -> torch.Tensor:
        """[*leading, K, B, inputs] -> [*leading, K, B, widths[-1]]; `note` is told each activation."""
        shape = inputs.shape[:-1]
        # one change of shape here instead of two in every layer
        hidden = inputs.flatten(-3, -2) if self.merges else inputs
        norms = iter(self.norms)
        for depth, linear in enumerate(self.linears):
            hidden = linear(hidden)
            if depth < self.activated:
                if self.normed:
                    hidden = next(norms)(hidden)
                # neither a linear map nor a norm keeps its output for the backward pass
                hidden = torch.relu_(hidden) if self.in_place else self.activate(hidden)
                if note is not None:
                    note("hidden", hidden.view(*shape, -1))
        return hidden.view(*shape, self.outputs) if self.merges else hidden
