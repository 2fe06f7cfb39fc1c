"""Copies of the networks in bf16, through which the losses pass; the originals stay in fp32."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from mtrl.nn import FlatParameters
from mtrl.nn.torsos import Router as ExpertRouter
from mtrl.reducer import Reducer

from .networks import Actor, TwinCritic

Network = TypeVar("Network", bound=nn.Module)


class Fast:
    """Actor, critics and targets as the losses see them.

    In fp32 they are the networks themselves. In bf16 they are copies whose weights are rounded anew before
    every update (mixed precision with master weights, Micikevicius et al. 2018, section 3.1): one rounding
    per network, where automatic casting would round every weight and activation on its way.
    """

    def __init__(self, actor: Actor, critic: TwinCritic, target: TwinCritic, bf16: bool) -> None:
        """Lays the weights of each side by side; `bf16` makes copies."""
        self.actor, self.critic, self.target = actor, critic, target
        originals = [FlatParameters(network) for network in (actor, critic, target)]
        self.weights = {"actor": originals[0], "critic": originals[1], "target": originals[2]}
        """What is optimised, averaged and saved."""
        self.used = self.weights
        """What the losses pass through."""
        # no other layer behaves in training otherwise than in use; telling every module costs more than it
        self._counts_loads = any(isinstance(module, ExpertRouter) for module in critic.modules())
        self._buffers = list(zip(target.buffers(), critic.buffers(), strict=True))
        if bf16:
            self.actor, self.critic, self.target = _copy(actor), _copy(critic), _copy(target)
            copies = [FlatParameters(network) for network in (self.actor, self.critic, self.target)]
            self.used = dict(zip(self.weights, copies, strict=True))

    def sync(self) -> None:
        """Takes over the weights as they are now."""
        if self.used is not self.weights:
            for name, copy_ in self.used.items():
                copy_.sync(self.weights[name])

    @torch.no_grad()
    def average(self, share: float) -> None:
        """target <- (1 - share) target + share critic, buffers copied."""
        self.weights["target"].sync(self.weights["critic"], share)
        for kept, fresh in self._buffers:
            kept.copy_(fresh)

    @contextmanager
    def advising(self) -> Iterator[None]:
        """The critics as the actor asks them: loads of their experts are counted, and evened out, where the
        critics themselves learn.
        """
        if not self._counts_loads:
            yield
            return
        self.critic.eval()
        try:
            yield
        finally:
            self.critic.train()

    def update_balance(self, reducer: Reducer) -> None:
        """Moves the experts' selection biases, which live in the networks that were used, once per update and
        by the loads of all ranks.
        """
        torsos = [network.network.torso for network in (self.actor, self.critic)]
        if reducer.size > 1:
            modules = [module for torso in torsos for module in torso.modules()]
            loads = {
                str(number): module.pending
                for number, module in enumerate(modules)
                if isinstance(module, ExpertRouter) and module.balanced
            }
            if loads:
                like = {name: (load.shape, load.dtype) for name, load in loads.items()}
                for name, load in reducer.sums(lambda: loads, like).items():
                    loads[name].copy_(load)
        for torso in torsos:
            torso.update_balance()


def _copy(network: Network) -> Network:
    made = copy.deepcopy(network)
    # statistics and selection biases are the same tensors, whichever of the two changes them
    for held, module in zip(network.modules(), made.modules(), strict=True):
        module._buffers.update(held._buffers)
    for parameter in made.parameters():
        parameter.data = parameter.data.bfloat16()
    return made
