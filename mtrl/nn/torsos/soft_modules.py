"""Soft Modularization: a routing network mixes the outputs of modules, layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers import BatchedLinear, activation_named
from .base import Torso


class SoftModulesTorso(Torso):
    """Yang et al. 2020 (arXiv 2003.13661), with the details that only the authors' program has.

    s = W2 act(W1 x), z = W_z e_k, g = MLP(act(z * s)) of the routing width;
    p^1 = softmax(W_d act(g)) and p^l = softmax(W_d act(g * W_u [p^1 ... p^(l-1)])), each row over the
    modules it reads; m^1 = act(s) for every module, m^(l+1) = act(p^l (W_l m^l)), and last
    act(sum_j p^L_j W_L m^L_j). The mixture stands before the activation (equation 8 has it after).
    """

    def _build(self, generator: torch.Generator | None) -> None:
        config, lead = self.config, self.leading
        parts = config.soft_modules
        count = parts.modules
        self.activate = activation_named(config.activation)
        self.observe = self._linear_stack(lead, self.inputs, [config.width, parts.embedding], generator)
        self.describe = BatchedLinear(lead, self.embedding.size, parts.embedding, generator=generator)
        self.route = self._linear_stack(lead, parts.embedding, [config.width] * 2, generator)
        self.modules_by_layer = nn.ModuleList()
        self.condition = nn.ModuleList()
        self.choose = nn.ModuleList()
        wide = parts.embedding
        for layer in range(parts.layers):
            self.modules_by_layer.append(
                BatchedLinear((*lead, count), wide, parts.module_width, generator=generator)
            )
            wide = parts.module_width
            if layer:
                earlier = layer * count * count
                self.condition.append(BatchedLinear(lead, earlier, config.width, generator=generator))
            choices = count if layer == parts.layers - 1 else count * count
            self.choose.append(BatchedLinear(lead, config.width, choices, bound=1e-3, generator=generator))

    @property
    def width(self) -> int:
        """Length of the output, that of one module."""
        return self.config.soft_modules.module_width

    def transform(self, features: Tensor, task_index: Tensor, embedding: Tensor) -> Tensor:
        """Records as gates the share of each module in the inputs of the next layer, averaged over these."""
        count = self.config.soft_modules.modules
        observed = self.observe(features)
        routing = self.route(self.activate(self.describe(embedding) * observed))
        entered = self.activate(observed)
        inputs = entered.unsqueeze(1).expand(-1, count, -1, -1, -1)
        gates: list[Tensor] = []
        for layer, (modules, choose) in enumerate(zip(self.modules_by_layer, self.choose, strict=True)):
            if layer:
                routing_here = routing * self.condition[layer - 1](torch.cat(gates, dim=-1))
            else:
                routing_here = routing
            logits = choose(self.activate(routing_here)).unflatten(-1, (-1, count))
            shares = torch.softmax(logits, dim=-1)
            outputs = modules(inputs)
            self.add_record("gates", shares.mean(dim=-2))
            self.add_record("experts", outputs)
            mixed = shares.to(outputs.dtype) @ outputs.movedim(1, -2)
            inputs = self.activate(mixed).movedim(3, 1)
            self.add_record("hidden", inputs)
            gates.append(shares.flatten(-2))
        return inputs.squeeze(1)
