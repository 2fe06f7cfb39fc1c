"""A perceptron's two passes written out, in memory that is used again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .flat import FlatParameters
from .layers import BatchedLinear, LayerNorm, TaskLinear
from .task_network import TaskNetwork
from .torsos.plain import MLPTorso

_relu_backward = torch.ops.aten.threshold_backward.grad_input
_norm_backward = torch.ops.aten.native_layer_norm_backward.default


class ExplicitNetwork:
    """Forward and backward pass of a `TaskNetwork` whose torso is an `MLPTorso` ("mlp", "multi_head"),
    without autograd; `serves` tests the rest. Own derivation of the gradients.

    For small networks on a CPU the products are less than half of a step. The rest is autograd's bookkeeping,
    and memory that is not in the caches. Here every activation but those of LayerNorm has its own buffer, and
    weight gradients are written into one vector, as an optimiser of `FlatParameters` reads them.

        network.inputs(B)[...] = features           # the last columns hold the task embedding already
        raw = network.forward()                     # name -> [N, K of the output, B, size]
        network.backward(gradients_of_raw)          # fills in `gradient`

    `inputs` keep their values while B stays the same; the next `forward` overwrites what it returned.
    """

    latest: Mapping[str, Tensor]
    """Output -> [N, K_o, B, size] for its K_o tasks: the result of the latest `forward`."""

    @staticmethod
    def serves(network: TaskNetwork) -> bool:
        """Whether the network is of the kind that is written out here: ReLU layers, LayerNorm without gain
        and offset or none, one-hot task embedding or none, one output for each task, shared or its own.
        """
        torso = network.torso
        if not isinstance(torso, MLPTorso):
            return False
        embedded = torso.config.embedding.kind == "one_hot" or not torso.config.task_input
        alike = torso.stack.in_place and torso.stack.merges
        linear = all(isinstance(output, (TaskLinear, BatchedLinear)) for output in network.outputs.values())
        tasks = sorted(task for name in network.outputs for task in network.tasks_of(name))
        return alike and embedded and linear and tasks == list(range(torso.tasks))

    def __init__(self, network: TaskNetwork, weights: FlatParameters, gradient: Tensor | None = None) -> None:
        """`weights` hold the network's parameters, perhaps among others, and `gradient` [P] is laid out as
        they are; without it there is no `backward`.
        """
        torso = network.torso
        assert isinstance(torso, MLPTorso) and self.serves(network), (
            "expected a network that `serves` accepts"
        )
        self._members, self._tasks, self._entry = torso.leading[0], torso.tasks, torso.entry
        self._eps = cast(LayerNorm, torso.stack.norms[0]).eps if torso.stack.normed else None
        self._one_hot = torso.entry - torso.inputs
        self._differentiates = gradient is not None
        slots: dict[int, Tensor] = {}
        if gradient is not None:
            parts = zip(weights.named.values(), weights.split(gradient), strict=True)
            slots = {id(value): slot for value, slot in parts}
        self._layers = [_Layer(layer, slots) for layer in torso.stack.linears]
        self._heads = [
            _Head(name, _Layer(output, slots), network.tasks_of(name), torso.tasks)
            for name, output in network.outputs.items()
        ]
        self._inputs: Tensor | None = None

    def inputs(self, samples: int) -> Tensor:
        """[K, B, entry] for B = `samples` of each of all K tasks in order: what `forward` reads. The columns
        of the one-hot task embedding, if any, are the last and filled in; the others begin at 0.
        """
        if self._inputs is None or self._inputs.shape[1] != samples:
            self._inputs = self._allocate(samples)
        return self._inputs

    def _allocate(self, samples: int) -> Tensor:
        """Buffers for B = `samples`; returns the inputs."""
        weight = self._layers[0].weight
        inputs = weight.new_zeros(self._tasks, samples, self._entry)
        if self._one_hot:
            inputs[..., -self._one_hot :] = torch.eye(self._tasks)[:, None]
        rows = self._tasks * samples
        self._merged_inputs = inputs.view(1, rows, -1).expand(self._members, -1, -1)
        shape = (self._members, rows, weight.shape[-1])
        # the gradients of activations alternate between two buffers; without `backward` so do activations
        self._gradients = [weight.new_empty(shape) for _ in range(2)]
        self._linear = [
            weight.new_empty(shape) if self._differentiates else self._gradients[depth % 2]
            for depth in range(len(self._layers))
        ]
        for head in self._heads:
            head.allocate(self._gradients[0], samples)
        self.latest = {head.name: head.raw for head in self._heads}
        return inputs

    def forward(self) -> Mapping[str, Tensor]:
        """Output -> [N, K_o, B, size] for its K_o tasks, of `inputs`."""
        hidden = self._merged_inputs
        self._activations = []
        for layer, linear in zip(self._layers, self._linear, strict=True):
            torch.baddbmm(layer.bias, hidden, layer.weight, out=linear)
            if self._eps is None:
                hidden = mean = inverse_std = linear.relu_()
            else:
                width = (linear.shape[-1],)
                hidden, mean, inverse_std = torch.native_layer_norm(linear, width, None, None, self._eps)
                hidden.relu_()
            if self._differentiates:
                self._activations.append((hidden, mean, inverse_std))
        for head in self._heads:
            head.forward(hidden)
        return self.latest

    def backward(self, gradients: Mapping[str, Tensor]) -> None:
        """Fills in the weights' gradient, from those [N, K_o, B, size] of what the latest `forward` gave."""
        assert len(gradients) == len(self._heads), "expected a gradient of every output"
        self._backward(gradients, weights=True)

    def backward_inputs(self, gradients: Mapping[str, Tensor], columns: slice) -> Tensor:
        """The gradient [N, K * B, columns] of those inputs alone; that of the weights stays as it is. Outputs
        that are left out have no gradient.
        """
        to_linear = self._backward(gradients, weights=False)
        return torch.bmm(to_linear, self._layers[0].transposed[..., columns])

    def _backward(self, gradients: Mapping[str, Tensor], *, weights: bool) -> Tensor:
        """Returns the gradient [N, K * B, width] of the first layer's product."""
        last = len(self._layers)
        gradient = self._gradients[last % 2]
        for head in self._heads:
            head.backward(gradients.get(head.name), gradient, weights=weights)
        for depth in range(last - 1, -1, -1):
            hidden, mean, inverse_std = self._activations[depth]
            _relu_backward(gradient, hidden, 0, grad_input=gradient)
            if self._eps is not None:
                linear = self._linear[depth]
                gradient = _norm_backward(
                    gradient, linear, (linear.shape[-1],), mean, inverse_std, None, None, [True, False, False]
                )[0]
            if weights:
                inputs = self._activations[depth - 1][0] if depth else self._merged_inputs
                self._layers[depth].differentiate(inputs, gradient)
            if depth:
                out = self._gradients[depth % 2]
                gradient = torch.bmm(gradient, self._layers[depth].transposed, out=out)
        return gradient


class _Layer:
    """Weights as batched products read them, and where their gradients go."""

    def __init__(self, layer: nn.Module, slots: Mapping[int, Tensor]) -> None:
        """`slots`: where gradients are written, by id(parameter), or nothing."""
        assert isinstance(layer, (TaskLinear, BatchedLinear)) and layer.bias is not None, (
            "expected a layer that `serves` accepts"
        )
        self.weight = _flat(layer.weight.detach(), 2)
        self.transposed = self.weight.mT
        self.bias = _flat(layer.bias.detach(), 1).unsqueeze(1)
        if slots:
            self._weight_slot = _flat(slots[id(layer.weight)], 2)
            self._bias_slot = _flat(slots[id(layer.bias)], 1).unsqueeze(1)

    def differentiate(self, inputs: Tensor, gradient: Tensor) -> None:
        """Writes the gradients, from the product's inputs and the gradient of its outputs."""
        torch.bmm(inputs.mT, gradient, out=self._weight_slot)
        torch.sum(gradient, 1, True, out=self._bias_slot)


class _Head:
    """An output layer, the tasks that it is for, and its buffers."""

    def __init__(self, name: str, layer: _Layer, served: Sequence[int], tasks: int) -> None:
        """`served` among all `tasks`."""
        self.name, self._layer, self._count = name, layer, len(served)
        self._rows = None if list(served) == list(range(tasks)) else torch.tensor(served)
        """[K_o]; None for all tasks in order."""

    def allocate(self, hidden: Tensor, samples: int) -> None:
        """Buffers for B = `samples`; `hidden` [N, K * B, width] is like the output of the last layer."""
        members, _, width = hidden.shape
        blocks, _, outputs = self._layer.weight.shape
        self._samples = samples
        self._shape = (blocks, members * self._count * samples // blocks, width)
        if self._rows is not None:
            some = (members, self._count, samples, width)
            self._selected, self._selected_gradient = hidden.new_empty(some), hidden.new_empty(some)
        self._raw = hidden.new_empty(*self._shape[:2], outputs)
        self.raw = self._raw.view(members, self._count, samples, outputs)

    def forward(self, hidden: Tensor) -> None:
        """Writes `raw` for hidden features [N, K * B, width]."""
        if self._rows is not None:
            hidden = torch.index_select(self._by_task(hidden), 1, self._rows, out=self._selected)
        self._inputs = hidden.view(self._shape)
        torch.baddbmm(self._layer.bias, self._inputs, self._layer.weight, out=self._raw)

    def backward(self, gradient: Tensor | None, to_hidden: Tensor, *, weights: bool) -> None:
        """Writes the gradient of the hidden features of its tasks into `to_hidden`, from that of `raw`; zeros
        for None.
        """
        if gradient is None:
            if self._rows is None:
                to_hidden.zero_()
            else:
                self._by_task(to_hidden).index_fill_(1, self._rows, 0)
            return
        to_raw = gradient.reshape(self._raw.shape)
        if weights:
            self._layer.differentiate(self._inputs, to_raw)
        out = to_hidden if self._rows is None else self._selected_gradient
        torch.bmm(to_raw, self._layer.transposed, out=out.view(self._shape))
        if self._rows is not None:
            self._by_task(to_hidden).index_copy_(1, self._rows, self._selected_gradient)

    def _by_task(self, values: Tensor) -> Tensor:
        return values.view(len(values), -1, self._samples, values.shape[-1])


def _flat(values: Tensor, inner: int) -> Tensor:
    """All axes before the last `inner` as one."""
    return values.reshape(-1, *values.shape[values.dim() - inner :])
