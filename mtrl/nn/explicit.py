"""A perceptron's two passes written out, in memory that is used again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from .flat import FlatParameters
from .layers import BatchedLinear, LayerNorm, TaskLinear
from .task_network import TaskNetwork
from .torsos import MLPTorso

_mask_back = torch.ops.aten.threshold_backward.grad_input
_norm_back = torch.ops.aten.native_layer_norm_backward.default


class ExplicitNetwork:
    """Forward and backward pass of a `TaskNetwork` of kind "mlp" with one output, without autograd.

    For small networks on a processor the products are less than half of a step. The rest is autograd's
    bookkeeping, and memory that is new to the caches at every turn. Here all but what LayerNorm gives has one
    place, and weight gradients are written side by side, as an optimiser of `FlatParameters` reads them.

        network.inputs(B)[...] = features           # the last columns hold the task embedding already
        raw = network.forward()                     # [N, K, B, size]
        network.backward(gradient_of_raw)           # fills in `gradient`

    `inputs` keep what was written while B stays the same; what `forward` returns is written over by the next.
    """

    @staticmethod
    def serves(network: TaskNetwork) -> bool:
        """Whether the network is of the kind that is written out here: ReLU layers, LayerNorm without gain
        and offset or none, one-hot task embedding or none, one output of all tasks that is shared or one per
        task.
        """
        torso = network.torso
        if not isinstance(torso, MLPTorso) or len(network.outputs) != 1:
            return False
        ((name, output),) = network.outputs.items()
        told = torso.config.embedding.kind == "one_hot" or not torso.config.task_input
        alike = torso.stack.in_place and torso.stack.merges
        return alike and told and network.has_all(name) and isinstance(output, (TaskLinear, BatchedLinear))

    def __init__(
        self, network: TaskNetwork, weights: FlatParameters, gradient: torch.Tensor | None = None
    ) -> None:
        """`weights` hold the network's parameters, perhaps among others, and `gradient` [P] is laid out as
        they are; without it there is no `backward`.
        """
        torso = network.torso
        assert isinstance(torso, MLPTorso) and self.serves(network), "asked before"
        (output,) = network.outputs.values()
        self._members, self._tasks = torso.leading[0], torso.tasks
        self._floor = cast(LayerNorm, torso.stack.norms[0]).floor if torso.stack.normed else None
        self._entry = torso.entry
        self._told = torso.entry - torso.inputs
        self._returns = gradient is not None
        layers = [*torso.stack.linears, output]
        self._weights = [_flat(layer.weight.detach(), 2) for layer in layers]
        self._turned = [weight.mT for weight in self._weights]
        self._biases = [_flat(layer.bias.detach(), 1).unsqueeze(1) for layer in layers]
        if gradient is not None:
            slots = zip(weights.named.values(), weights.split(gradient), strict=True)
            places = {id(value): slot for value, slot in slots}
            self._weight_slots = [_flat(places[id(layer.weight)], 2) for layer in layers]
            self._bias_slots = [_flat(places[id(layer.bias)], 1).unsqueeze(1) for layer in layers]
        self._blocks = self._members * (self._tasks if isinstance(output, TaskLinear) else 1)
        self._room: _Room | None = None

    def inputs(self, samples: int) -> torch.Tensor:
        """[K, B, entry] for B = `samples` of each of all K tasks in order: what `forward` reads. The columns
        of the one-hot task embedding, if any, are the last and filled in.
        """
        if self._room is None or self._room.inputs.shape[1] != samples:
            self._room = _Room(
                self._weights[0].new_zeros(self._tasks, samples, self._entry),
                self._members,
                self._blocks,
                [weight.shape[-1] for weight in self._weights],
                self._returns,
            )
            if self._told:
                self._room.inputs[..., -self._told :] = torch.eye(self._tasks)[:, None]
        return self._room.inputs

    def forward(self) -> torch.Tensor:
        """[N, K, B, size], what comes out for `inputs`."""
        room = self._present()
        hidden = room.entering
        stages = []
        for weight, bias, place in zip(self._weights[:-1], self._biases[:-1], room.hidden, strict=True):
            torch.baddbmm(bias, hidden, weight, out=place)
            if self._floor is None:
                hidden = mean = inverse = place.relu_()
            else:
                width = place.shape[-1]
                hidden, mean, inverse = torch.native_layer_norm(place, (width,), None, None, self._floor)
                hidden.relu_()
            stages.append((hidden, mean, inverse))
        room.stages = stages if self._returns else []
        torch.baddbmm(self._biases[-1], hidden.view(room.outer), self._weights[-1], out=room.outgoing)
        return room.raw

    def backward(self, gradient: torch.Tensor) -> None:
        """Fills in the weights' gradient, from that [N, K, B, size] of what the latest `forward` gave."""
        self._back(gradient, weights=True)

    def backward_inputs(self, gradient: torch.Tensor, columns: slice) -> torch.Tensor:
        """The gradient [N, K * B, columns] of those inputs alone; that of the weights stays as it is."""
        return torch.bmm(self._back(gradient, weights=False), self._turned[0][..., columns])

    def _back(self, gradient: torch.Tensor, *, weights: bool) -> torch.Tensor:
        """Down to the gradient [N, K * B, width] of what the first layer's product gave."""
        room = self._present()
        last = len(room.hidden)
        leaving = gradient.reshape(room.outgoing.shape)
        if weights:
            hidden = room.stages[-1][0].view(room.outer)
            torch.bmm(hidden.mT, leaving, out=self._weight_slots[last])
            torch.sum(leaving, 1, True, out=self._bias_slots[last])
        back = room.backs[last % 2]
        torch.bmm(leaving, self._turned[last], out=back.view(room.outer))
        for depth in range(last - 1, -1, -1):
            hidden, mean, inverse = room.stages[depth]
            _mask_back(back, hidden, 0, grad_input=back)
            if self._floor is not None:
                place = room.hidden[depth]
                width = (place.shape[-1],)
                back = _norm_back(back, place, width, mean, inverse, None, None, [True, False, False])[0]
            before = room.stages[depth - 1][0] if depth else room.entering
            if weights:
                torch.bmm(before.mT, back, out=self._weight_slots[depth])
                torch.sum(back, 1, True, out=self._bias_slots[depth])
            if depth:
                back = torch.bmm(back, self._turned[depth], out=room.backs[depth % 2])
        return back

    def _present(self) -> _Room:
        assert self._room is not None, "`inputs` is asked for before the passes"
        return self._room


class _Room:
    """Places for everything between the inputs and the outputs of so many samples."""

    def __init__(
        self, inputs: torch.Tensor, members: int, blocks: int, sizes: Sequence[int], returns: bool
    ) -> None:
        """`inputs` [K, B, entry], and the `sizes` of what each layer gives, the last one in `blocks` blocks;
        `returns` where a backward pass follows.
        """
        tasks, samples, _ = inputs.shape
        *widths, size = sizes
        rows = (members, tasks * samples, widths[-1])
        self.inputs = inputs
        self.entering = inputs.view(1, tasks * samples, -1).expand(members, -1, -1)
        two = [inputs.new_empty(rows) for _ in range(2)]
        self.backs = two if returns else []
        """Where the gradients of activations lie in turn."""
        # without a way back, a layer's output is done with when the next one's is there
        self.hidden = [inputs.new_empty(rows) if returns else two[k % 2] for k in range(len(widths))]
        self.stages: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        """What each layer gave; mean and inverse deviation where there is a LayerNorm, or else the same."""
        self.outer = (blocks, members * tasks * samples // blocks, widths[-1])
        self.outgoing = inputs.new_empty(*self.outer[:2], size)
        self.raw = self.outgoing.view(members, tasks, samples, size)


def _flat(values: torch.Tensor, inner: int) -> torch.Tensor:
    """All axes before the last `inner` as one."""
    return values.reshape(-1, *values.shape[values.dim() - inner :])
