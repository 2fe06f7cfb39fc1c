"""All weights of a network side by side in one tensor, for steps that treat them alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import nn


class FlatParameters:
    """A network's parameters as views of one vector.

    What treats all weights alike (an optimiser, a moving average, a norm, a rounded copy) then is one
    operation instead of one per parameter; for small networks that is most of its price. The network itself,
    its state_dict and its gradients by name stay as they are. Its parameters may be written in place and
    loaded, never exchanged or moved to another device.
    """

    def __init__(self, network: nn.Module) -> None:
        """Takes the weights over as they are; all of one kind, on one device."""
        # a vector without dimensions makes an empty weight, which has no place
        named = {name: value for name, value in network.named_parameters() if value.numel()}
        self.named = named
        self.whole = nn.Parameter(torch.cat([value.detach().flatten() for value in named.values()]))
        """[P]; its `.grad` is a vector too."""
        self.whole.requires_grad_(any(value.requires_grad for value in named.values()))
        self._sizes = [value.numel() for value in named.values()]
        for value, part in zip(named.values(), self.whole.detach().split(self._sizes), strict=True):
            value.data = part.view_as(value)

    @cached_property
    def _gradient(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """[P], and by parameter name the place [1, ...] of each gradient in it."""
        whole = torch.zeros_like(self.whole, requires_grad=False)
        pairs = zip(self.named.items(), whole.split(self._sizes), strict=True)
        return whole, {name: part.view(1, *value.shape) for (name, value), part in pairs}

    def lay(self, gradients: Sequence[torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Puts gradients, one for every parameter in order, into `whole.grad`; returns them by name as
        [1, ...], views that the next call writes over.
        """
        whole, slots = self._gradient
        self.whole.grad = whole
        parts = [gradient.reshape(-1) for gradient in gradients]
        if parts[0].dtype == whole.dtype:
            torch.cat(parts, out=whole)
        else:
            whole.copy_(torch.cat(parts))
        return slots

    def gather(self, gradients: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Puts gradients by name, one for every parameter, into `whole.grad`, and returns it; what `lay`
        returned is there already.
        """
        whole, slots = self._gradient
        self.whole.grad = whole
        if any(gradients[name] is not slot for name, slot in slots.items()):
            self.lay([gradients[name] for name in slots])
        return whole

    @torch.no_grad()
    def follow(self, source: FlatParameters, share: float = 1.0) -> None:
        """whole <- (1 - share) whole + share source, rounded where the kinds differ."""
        if share == 1.0:
            self.whole.copy_(source.whole)
        else:
            self.whole.lerp_(source.whole, share)
