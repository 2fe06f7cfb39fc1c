"""All weights of a network as one vector, for steps that treat them alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn


class FlatParameters:
    """A network's parameters as views of one vector.

    What treats all weights alike (an optimiser, a moving average, a norm, a rounded copy) then is one
    operation instead of one per parameter, which is most of its cost in small networks. The network itself,
    its state_dict and its gradients by name stay as they are. Its parameters may be written in place and
    loaded, but not replaced or moved to another device.
    """

    def __init__(self, network: nn.Module) -> None:
        """All parameters must have one dtype and device."""
        # weights without entries are left out
        named = {name: value for name, value in network.named_parameters() if value.numel()}
        self.named = named
        self.vector = nn.Parameter(torch.cat([value.detach().flatten() for value in named.values()]))
        """[P]; its `.grad` is a vector too."""
        self.vector.requires_grad_(any(value.requires_grad for value in named.values()))
        self._sizes = [value.numel() for value in named.values()]
        for value, part in zip(named.values(), self.split(self.vector.detach()), strict=True):
            value.data = part

    def split(self, vector: Tensor) -> list[Tensor]:
        """The part of a vector [P], laid out like `self.vector`, that belongs to each parameter, in the
        parameter's shape.
        """
        pairs = zip(vector.split(self._sizes), self.named.values(), strict=True)
        return [part.view(value.shape) for part, value in pairs]

    @cached_property
    def gradient(self) -> Tensor:
        """[P], where `write_gradients` and `copy_` leave the gradient."""
        return torch.zeros_like(self.vector, requires_grad=False)

    def write_gradients(self, gradients: Sequence[Tensor] | Mapping[str, Tensor]) -> None:
        """Writes gradients, one for every parameter, in order or by name, into `vector.grad`."""
        if isinstance(gradients, Mapping):
            gradients = [gradients[name] for name in self.named]
        self.copy_(torch.cat([gradient.reshape(-1) for gradient in gradients]))

    def copy_(self, gradient: Tensor) -> None:
        """`write_gradients` for a gradient [P] that is one vector already, perhaps `gradient` itself."""
        self.vector.grad = target = self.gradient
        if gradient is not target:
            target.copy_(gradient)

    @torch.no_grad()
    def sync(self, source: FlatParameters, share: float = 1.0) -> None:
        """vector <- (1 - share) vector + share source, rounded where the dtypes differ."""
        if share == 1.0:
            self.vector.copy_(source.vector)
        else:
            self.vector.lerp_(source.vector, share)
