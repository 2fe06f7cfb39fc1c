"""A perceptron's two passes written out, in memory that is used again and again."""

from __future__ import annotations

import torch

from .flat import FlatParameters
from .layers import BatchedLinear, TaskLinear
from .task_network import TaskNetwork
from .torsos import MLPTorso

_mask_back = torch.ops.aten.threshold_backward.grad_input
_norm_back = torch.ops.aten.native_layer_norm_backward.default


class ExplicitNetwork:
    """Forward and backward pass of a `TaskNetwork` of kind "mlp" with one output, without autograd.

    For small networks on a processor the products are less than half of a step. The rest is autograd's
    bookkeeping, and memory that is new to the caches at every turn. Here every activation has one place, the
    gradient of what comes out is turned into that of what goes in where it lies, and weight gradients are
    written side by side, as an optimiser of `FlatParameters` reads them.

        network.inputs(K, B)[...] = features        # the last columns hold the task embedding already
        raw = network.forward()                     # [N, K, B, size]
        network.backward(gradient_of_raw)           # fills `gradient`

    What `inputs`, `forward` and `backward` return is written over by the next call.
    """

    @staticmethod
    def serves(network: TaskNetwork) -> bool:
        """Whether the network is of the kind that is written out here: ReLU layers, LayerNorm without gain
        and offset or none, one-hot task embedding or none, one output that is shared or one per task.
        """
        torso = network.torso
        if not isinstance(torso, MLPTorso) or len(network.outputs) != 1:
            return False
        (output,) = network.outputs.values()
        stack = torso.stack
        told = torso.config.embedding.kind == "one_hot" or not torso.config.task_input
        every = not isinstance(output, TaskLinear) or output.weight.shape[-3] == torso.tasks
        return (
            stack.in_place
            and stack.merges
            and stack.activated == len(stack.linears)
            and told
            and every
            and isinstance(output, (TaskLinear, BatchedLinear))
        )

    def __init__(
        self,
        network: TaskNetwork,
        weights: FlatParameters,
        gradient: torch.Tensor | None = None,
    ) -> None:
        """`weights` hold the network's parameters, perhaps among others, and `gradient` [P] is laid out as
        they are; without it there is no `backward`.
        """
        torso = network.torso
        assert isinstance(torso, MLPTorso) and self.serves(network), "asked before"
        (output,) = network.outputs.values()
        self._members, self._tasks = torso.leading[0], torso.tasks
        self._normed = torso.stack.normed
        self._floor = torso.stack.floor
        self._entry = torso.entry
        self._told = torso.entry - torso.inputs
        layers = [*torso.stack.linears, output]
        self._weights = [_flat(layer.weight.detach(), 2) for layer in layers]
        self._turned = [weight.mT for weight in self._weights]
        self._biases = [_flat(layer.bias.detach(), 1).unsqueeze(1) for layer in layers]
        if gradient is not None:
            slots = zip(weights.named.values(), weights.split(gradient), strict=True)
            places = {id(value): slot for value, slot in slots}
            self._weight_slots = [_flat(places[id(layer.weight)], 2) for layer in layers]
            self._bias_slots = [_flat(places[id(layer.bias)], 1).unsqueeze(1) for layer in layers]
        self._per_task = isinstance(output, TaskLinear)
        self._room: _Room | None = None

    def inputs(self, samples: int) -> torch.Tensor:
        """[K, B, entry] for B = `samples` of each of all K tasks in order: what `forward` reads. The columns
        of the one-hot task embedding, if any, are the last and filled in.
        """
        if self._room is None or self._room.samples != samples:
            self._room = _Room(self, samples)
        return self._room.inputs

    def forward(self) -> torch.Tensor:
        """[N, K, B, size], what comes out for `inputs`."""
        room = self._present()
        hidden = room.entering
        room.stages = []
        for weight, bias, place in zip(self._weights[:-1], self._biases[:-1], room.hidden, strict=True):
            torch.baddbmm(bias, hidden, weight, out=place)
            if self._normed:
                width = place.shape[-1]
                hidden, mean, inverse = torch.native_layer_norm(place, (width,), None, None, self._floor)
                room.stages.append((hidden.relu_(), mean, inverse))
            else:
                hidden = place.relu_()
                room.stages.append((hidden, hidden, hidden))
        torch.baddbmm(self._biases[-1], hidden.view(room.outer), self._weights[-1], out=room.outgoing)
        return room.raw

    def backward(self, gradient: torch.Tensor, columns: slice | None = None) -> torch.Tensor | None:
        """From the gradient [N, K, B, size] of what the latest `forward` gave: fills in `gradient`; or,
        with `columns`, leaves that alone and returns the gradient [N, K * B, columns] of those inputs.
        """
        room = self._present()
        last = len(room.hidden)
        leaving = gradient.reshape(room.outgoing.shape)
        if columns is None:
            hidden = room.stages[-1][0].view(room.outer)
            torch.bmm(hidden.mT, leaving, out=self._weight_slots[last])
            torch.sum(leaving, 1, True, out=self._bias_slots[last])
        back = room.backs[last % 2]
        torch.bmm(leaving, self._turned[last], out=back.view(room.outer))
        for depth in range(last - 1, -1, -1):
            hidden, mean, inverse = room.stages[depth]
            _mask_back(back, hidden, 0, grad_input=back)
            if self._normed:
                place = room.hidden[depth]
                width = (place.shape[-1],)
                back = _norm_back(back, place, width, mean, inverse, None, None, [True, False, False])[0]
            before = room.stages[depth - 1][0] if depth else room.entering
            if columns is None:
                torch.bmm(before.mT, back, out=self._weight_slots[depth])
                torch.sum(back, 1, True, out=self._bias_slots[depth])
            if depth:
                back = torch.bmm(back, self._turned[depth], out=room.backs[depth % 2])
        return None if columns is None else torch.bmm(back, self._turned[0][..., columns])

    def _present(self) -> _Room:
        assert self._room is not None, "`inputs` is asked for before the passes"
        return self._room


class _Room:
    """Places for everything between the inputs and the outputs of B samples."""

    def __init__(self, network: ExplicitNetwork, samples: int) -> None:
        members, tasks, like = network._members, network._tasks, network._weights[0]
        width, size = network._weights[-1].shape[-2:]
        self.samples = samples
        self.inputs = like.new_zeros(tasks, samples, network._entry)
        if network._told:
            self.inputs[..., -network._told :] = torch.eye(tasks)[:, None]
        self.entering = self.inputs.view(1, tasks * samples, -1).expand(members, -1, -1)
        rows = (members, tasks * samples, width)
        self.hidden = [like.new_empty(rows) for _ in network._weights[:-1]]
        self.stages: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        """Of each layer: what it gave, and mean and inverse deviation where there is a LayerNorm."""
        self.backs = [like.new_empty(rows) for _ in range(2)]
        """Where the gradients of activations lie in turn."""
        blocks = members * tasks if network._per_task else members
        self.outer = (blocks, members * tasks * samples // blocks, width)
        self.outgoing = like.new_empty(*self.outer[:2], size)
        self.raw = self.outgoing.view(members, tasks, samples, size)


def _flat(values: torch.Tensor, inner: int) -> torch.Tensor:
    """All axes before the last `inner` as one."""
    return values.reshape(-1, *values.shape[values.dim() - inner :])
