"""A perceptron's two passes written out, in memory that is used again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import nn

from .flat import FlatParameters
from .layers import BatchedLinear, LayerNorm, TaskLinear
from .task_network import TaskNetwork
from .torsos import MLPTorso

_mask_back = torch.ops.aten.threshold_backward.grad_input
_norm_back = torch.ops.aten.native_layer_norm_backward.default


class ExplicitNetwork:
    """Forward and backward pass of a `TaskNetwork` of kind "mlp", without autograd.

    For small networks on a processor the products are less than half of a step. The rest is autograd's
    bookkeeping, and memory that is new to the caches at every turn. Here all but what LayerNorm gives has one
    place, and weight gradients are written side by side, as an optimiser of `FlatParameters` reads them.

        network.inputs(B)[...] = features           # the last columns hold the task embedding already
        raw = network.forward()                     # name -> [N, K of the output, B, size]
        network.backward(gradients_of_raw)          # fills in `gradient`

    `inputs` keep what was written while B stays the same; what `forward` returns is written over by the next.
    """

    @staticmethod
    def serves(network: TaskNetwork) -> bool:
        """Whether the network is of the kind that is written out here: ReLU layers, LayerNorm without gain
        and offset or none, one-hot task embedding or none, one output for each task, shared or its own.
        """
        torso = network.torso
        if not isinstance(torso, MLPTorso):
            return False
        told = torso.config.embedding.kind == "one_hot" or not torso.config.task_input
        alike = torso.stack.in_place and torso.stack.merges
        linear = all(isinstance(output, (TaskLinear, BatchedLinear)) for output in network.outputs.values())
        owners = sorted(task for name in network.outputs for task in network.tasks_of(name))
        return alike and told and linear and owners == list(range(torso.tasks))

    def __init__(
        self, network: TaskNetwork, weights: FlatParameters, gradient: torch.Tensor | None = None
    ) -> None:
        """`weights` hold the network's parameters, perhaps among others, and `gradient` [P] is laid out as
        they are; without it there is no `backward`.
        """
        torso = network.torso
        assert isinstance(torso, MLPTorso) and self.serves(network), "asked before"
        self._members, self._tasks = torso.leading[0], torso.tasks
        self._floor = cast(LayerNorm, torso.stack.norms[0]).floor if torso.stack.normed else None
        self._entry = torso.entry
        self._told = torso.entry - torso.inputs
        self._returns = gradient is not None
        slots: dict[int, torch.Tensor] = {}
        if gradient is not None:
            parts = zip(weights.named.values(), weights.split(gradient), strict=True)
            slots = {id(value): slot for value, slot in parts}
        self._layers = [_Layer(layer, slots) for layer in torso.stack.linears]
        self._heads = [
            _Head(name, _Layer(output, slots), network.tasks_of(name), torso.tasks)
            for name, output in network.outputs.items()
        ]
        self._room: _Room | None = None

    def inputs(self, samples: int) -> torch.Tensor:
        """[K, B, entry] for B = `samples` of each of all K tasks in order: what `forward` reads. The columns
        of the one-hot task embedding, if any, are the last and filled in; the others begin at 0.
        """
        if self._room is None or self._room.inputs.shape[1] != samples:
            self._room = _Room(
                self._layers[0].weight.new_zeros(self._tasks, samples, self._entry),
                self._members,
                [layer.weight.shape[-1] for layer in self._layers],
                self._heads,
                self._returns,
            )
            if self._told:
                self._room.inputs[..., -self._told :] = torch.eye(self._tasks)[:, None]
        return self._room.inputs

    def forward(self) -> Mapping[str, torch.Tensor]:
        """Output -> [N, K_o, B, size] for its K_o tasks: what comes out for `inputs`."""
        room = self._present()
        hidden = room.entering
        stages = []
        for layer, place in zip(self._layers, room.hidden, strict=True):
            torch.baddbmm(layer.bias, hidden, layer.weight, out=place)
            if self._floor is None:
                hidden = mean = inverse = place.relu_()
            else:
                width = place.shape[-1]
                hidden, mean, inverse = torch.native_layer_norm(place, (width,), None, None, self._floor)
                hidden.relu_()
            stages.append((hidden, mean, inverse))
        room.stages = stages if self._returns else []
        for head, end in zip(self._heads, room.ends, strict=True):
            end.enter(hidden)
            torch.baddbmm(head.layer.bias, end.entering, head.layer.weight, out=end.outgoing)
        return room.raw

    @property
    def latest(self) -> Mapping[str, torch.Tensor]:
        """What the latest `forward` gave."""
        return self._present().raw

    def backward(self, gradients: Mapping[str, torch.Tensor]) -> None:
        """Fills in the weights' gradient, from those [N, K_o, B, size] of what the latest `forward` gave."""
        assert len(gradients) == len(self._heads), "weights of outputs that are left out would keep theirs"
        self._back(gradients, weights=True)

    def backward_inputs(self, gradients: Mapping[str, torch.Tensor], columns: slice) -> torch.Tensor:
        """The gradient [N, K * B, columns] of those inputs alone; that of the weights stays as it is. Outputs
        that are left out have no gradient.
        """
        return torch.bmm(self._back(gradients, weights=False), self._layers[0].turned[..., columns])

    def _back(self, gradients: Mapping[str, torch.Tensor], *, weights: bool) -> torch.Tensor:
        """Down to the gradient [N, K * B, width] of what the first layer's product gave."""
        room = self._present()
        last = len(room.hidden)
        back = room.backs[last % 2]
        for head, end in zip(self._heads, room.ends, strict=True):
            if head.name in gradients:
                leaving = gradients[head.name].reshape(end.outgoing.shape)
                if weights:
                    head.layer.differentiate(end.entering, leaving)
                torch.bmm(leaving, head.layer.turned, out=end.returning(back))
                end.leave(back)
            else:
                end.silence(back)
        for depth in range(last - 1, -1, -1):
            hidden, mean, inverse = room.stages[depth]
            _mask_back(back, hidden, 0, grad_input=back)
            if self._floor is not None:
                place = room.hidden[depth]
                width = (place.shape[-1],)
                back = _norm_back(back, place, width, mean, inverse, None, None, [True, False, False])[0]
            if weights:
                self._layers[depth].differentiate(room.stages[depth - 1][0] if depth else room.entering, back)
            if depth:
                back = torch.bmm(back, self._layers[depth].turned, out=room.backs[depth % 2])
        return back

    def _present(self) -> _Room:
        assert self._room is not None, "`inputs` is asked for before the passes"
        return self._room


class _Layer:
    """Weights as batched products read them, and where their gradients go."""

    def __init__(self, layer: nn.Module, slots: Mapping[int, torch.Tensor]) -> None:
        """`slots`: the places of gradients by id(parameter), or nothing."""
        assert isinstance(layer, (TaskLinear, BatchedLinear)) and layer.bias is not None, "asked before"
        self.weight = _flat(layer.weight.detach(), 2)
        self.turned = self.weight.mT
        self.bias = _flat(layer.bias.detach(), 1).unsqueeze(1)
        if slots:
            self._weight_slot = _flat(slots[id(layer.weight)], 2)
            self._bias_slot = _flat(slots[id(layer.bias)], 1).unsqueeze(1)

    def differentiate(self, entered: torch.Tensor, leaving: torch.Tensor) -> None:
        """Gradients, from what entered the product and the gradient of what left it."""
        torch.bmm(entered.mT, leaving, out=self._weight_slot)
        torch.sum(leaving, 1, True, out=self._bias_slot)


class _Head:
    """An output layer and the tasks that it is for."""

    def __init__(self, name: str, layer: _Layer, owners: Sequence[int], tasks: int) -> None:
        """`owners` among all `tasks`."""
        self.name, self.layer, self.count = name, layer, len(owners)
        self.rows = None if list(owners) == list(range(tasks)) else torch.tensor(owners)
        """[K_o]; None for all tasks in order."""


class _End:
    """Places at an output layer, for so many samples of its tasks."""

    def __init__(self, head: _Head, like: torch.Tensor, members: int, samples: int, returns: bool) -> None:
        """`like` [N, K * B, width] is what the last layer gives."""
        self._head, self._members, self._samples = head, members, samples
        some = (members, head.count, samples, like.shape[-1])
        blocks = head.layer.weight.shape[0]
        self._outer = (blocks, members * head.count * samples // blocks, like.shape[-1])
        self._picked = [like.new_empty(some) for _ in range(1 + returns)] if head.rows is not None else []
        """Features and gradients of the output's tasks, where those are not all."""
        self.entering = like
        """[blocks, samples of a block, width], set by `enter`."""
        self.outgoing = like.new_empty(*self._outer[:2], head.layer.weight.shape[-1])
        self.raw = self.outgoing.view(members, head.count, samples, -1)

    def enter(self, hidden: torch.Tensor) -> None:
        """Takes from hidden features [N, K * B, width] what the output reads."""
        if self._head.rows is not None:
            hidden = torch.index_select(self._by_task(hidden), 1, self._head.rows, out=self._picked[0])
        self.entering = hidden.view(self._outer)

    def returning(self, back: torch.Tensor) -> torch.Tensor:
        """Where the gradient of `entering` is to be written; `leave` then puts it into `back`."""
        return (back if self._head.rows is None else self._picked[1]).view(self._outer)

    def leave(self, back: torch.Tensor) -> None:
        """Puts the gradient into that of all hidden features."""
        if self._head.rows is not None:
            self._by_task(back).index_copy_(1, self._head.rows, self._picked[1])

    def silence(self, back: torch.Tensor) -> None:
        """No gradient for the tasks of this output."""
        if self._head.rows is None:
            back.zero_()
        else:
            self._by_task(back).index_fill_(1, self._head.rows, 0)

    def _by_task(self, values: torch.Tensor) -> torch.Tensor:
        return values.view(self._members, -1, self._samples, values.shape[-1])


class _Room:
    """Places for everything between the inputs and the outputs of so many samples."""

    def __init__(
        self,
        inputs: torch.Tensor,
        members: int,
        widths: Sequence[int],
        heads: Sequence[_Head],
        returns: bool,
    ) -> None:
        """`inputs` [K, B, entry], and the `widths` of what each layer gives; `returns` where a backward pass
        follows.
        """
        tasks, samples, _ = inputs.shape
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
        self.ends = [_End(head, two[0], members, samples, returns) for head in heads]
        self.raw = {head.name: end.raw for head, end in zip(heads, self.ends, strict=True)}


def _flat(values: torch.Tensor, inner: int) -> torch.Tensor:
    """All axes before the last `inner` as one."""
    return values.reshape(-1, *values.shape[values.dim() - inner :])
