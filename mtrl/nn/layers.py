"""The few layers with parameters that every multi-task network here is made of.

One shape rule holds for all of them, so that the gradient of every task can be read off one backward
pass: the last axis holds features, the one before it samples B, the one before that tasks K, and
whatever is left of those are the `leading` axes that have weights of their own (N ensemble members,
E experts). Samples of different tasks never meet inside a layer. Layers that treat all tasks alike also
take the axes of tasks and samples as one, tasks outermost. Gradients per task that docstrings state are
own derivations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mtrl.errors import UnknownNameError

from .config import ACTIVATIONS

Leading = tuple[int, ...]
"""Sizes of the axes that own separate weights, e.g. (N,) for an ensemble or (N, E) for its experts."""


def fill_uniform(parameter: Tensor, bound: float, generator: torch.Generator | None) -> None:
    """Draws every entry from U(-bound, bound)."""
    with torch.no_grad():
        parameter.uniform_(-bound, bound, generator=generator)


def fill_he_uniform(parameter: Tensor, inputs: int, generator: torch.Generator | None) -> None:
    """U(+-sqrt(6 / inputs)), which keeps the variance through ReLU (He et al. 2015, equation 10)."""
    fill_uniform(parameter, math.sqrt(6.0 / inputs), generator)


class _Dense(nn.Module):
    """weight [*leading, inputs, outputs] and bias [*leading, outputs]."""

    bias: Tensor | None

    def __init__(
        self,
        leading: Leading,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        bound: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Weights are He-uniform, or U(+-`bound`) when given; biases start at zero."""
        super().__init__()
        self.leading = leading
        self.weight = nn.Parameter(torch.empty(*leading, inputs, outputs))
        self.register_parameter("bias", nn.Parameter(torch.zeros(*leading, outputs)) if bias else None)
        if bound is None:
            fill_he_uniform(self.weight, inputs, generator)
        else:
            fill_uniform(self.weight, bound, generator)


class BatchedLinear(_Dense):
    """One dense layer per leading index, all in a single batched product.

    The gradient of task k is X_k^T D_k and the sum of D_k over samples, with X the input and D the gradient
    of the output.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """[*leading, K, B, inputs] -> [*leading, K, B, outputs]; K and B may be one axis."""
        # what has its shape already needs no view, which autograd would follow
        plain = inputs.dim() == 3 and self.weight.dim() == 3
        weight = self.weight if self.weight.dim() == 3 else self.weight.reshape(-1, *self.weight.shape[-2:])
        flat = inputs if plain else inputs.reshape(len(weight), -1, inputs.shape[-1])
        if self.bias is None:
            out = torch.bmm(flat, weight)
        else:
            out = torch.baddbmm(self.bias.reshape(-1, 1, self.bias.shape[-1]), flat, weight)
        if plain:
            return out
        rest = inputs.shape[len(self.leading) + 1 : -1]
        return out.reshape(*self.leading, -1, *rest, weight.shape[-1])


class TaskLinear(_Dense):
    """One dense layer per task, the last leading axis: a sample passes only through that of its own task.

    The gradient of task k touches only row task_index[k].
    """

    bias: Tensor

    def forward(self, inputs: Tensor, task_index: Tensor | None) -> Tensor:
        """[*leading, K, B, inputs], task_index [K] -> [*leading, K, B, outputs], `leading` without tasks.

        None stands for every task in order, for which no weights need to be gathered.
        """
        weight = self.weight.reshape(-1, *self.weight.shape[-2:])
        bias = self.bias.reshape(-1, 1, self.bias.shape[-1])
        if task_index is not None:
            rows = _rows(self.leading, task_index)
            weight, bias = weight.index_select(0, rows), bias.index_select(0, rows)
        out = torch.baddbmm(bias, inputs.reshape(-1, *inputs.shape[-2:]), weight)
        return out.reshape(*inputs.shape[:-1], weight.shape[-1])


class ComposedLinear(_Dense):
    """A dense layer whose weights are a mixture of J parameter sets, the last leading axis.

    y = x W_k + b_k with W_k = sum_j m_kj W_j and b_k = sum_j m_kj b_j. The sets are mixed before they
    are applied, which takes (J + B) / (J B) of the products that mixing J outputs would. The gradient of task
    k is m_kj X_k^T D_k for W_j, and <W_j, X_k^T D_k> + <b_j, sum D_k> for m_kj.
    """

    bias: Tensor

    def forward(self, inputs: Tensor, mixture: Tensor) -> Tensor:
        """[*leading, K, B, inputs], mixture [*leading, K, 1, J] -> [*leading, K, B, outputs]"""
        sets, width, outputs = self.weight.shape[-3:]
        mixed = mixture.reshape(-1, mixture.shape[-3], sets)
        weight = torch.bmm(mixed, self.weight.reshape(-1, sets, width * outputs))
        bias = torch.bmm(mixed, self.bias.reshape(-1, sets, outputs))
        out = torch.baddbmm(
            bias.reshape(-1, 1, outputs),
            inputs.reshape(-1, *inputs.shape[-2:]),
            weight.reshape(-1, width, outputs),
        )
        return out.reshape(*inputs.shape[:-1], outputs)


class LayerNorm(nn.Module):
    """Standardises the features of each sample by themselves (Ba et al. 2016).

    weight and bias [*leading, width], absent without `affine`. The gradient of task k is the sum over
    samples of D * x_hat and of D.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, leading: Leading, width: int, *, affine: bool = True, eps: float = 1e-5) -> None:
        """`eps` is added to the variance."""
        super().__init__()
        self.width, self.eps = width, eps
        self.register_parameter("weight", nn.Parameter(torch.ones(*leading, width)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(*leading, width)) if affine else None)

    def forward(self, inputs: Tensor) -> Tensor:
        """[*leading, K, B, width] -> the same shape; without `affine`, K and B may be one axis."""
        normal = torch.layer_norm(inputs, (self.width,), None, None, self.eps)
        if self.weight is None or self.bias is None:
            return normal
        return normal * self.weight[..., None, None, :] + self.bias[..., None, None, :]


class TaskTable(nn.Module):
    """A learned row of numbers per task. weight [*leading, T, width]."""

    def __init__(
        self,
        leading: Leading,
        tasks: int,
        width: int,
        *,
        bound: float,
        generator: torch.Generator | None = None,
    ) -> None:
        """Entries start as U(+-`bound`)."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*leading, tasks, width))
        fill_uniform(self.weight, bound, generator)

    def forward(self, task_index: Tensor) -> Tensor:
        """task_index [K] -> [*leading, K, 1, width]"""
        *leading, tasks, width = self.weight.shape
        rows = self.weight.reshape(-1, width).index_select(0, _rows((*leading, tasks), task_index))
        return rows.reshape(*leading, -1, 1, width)


def mixture_bound(parts: int) -> float:
    """sqrt(3 / parts): rows U(+-bound) have expected squared length 1, so that a mixture of `parts`
    independent parts keeps their variance whatever the number of tasks.
    """
    return math.sqrt(3.0 / parts)


def _rows(axes: Leading, task_index: Tensor) -> Tensor:
    """The rows of `task_index` [K] once the axes [*leading, T] are one: [prod(leading) * K]."""
    *leading, tasks = axes
    blocks = torch.arange(math.prod(leading), device=task_index.device) * tasks
    return (blocks[:, None] + task_index).flatten()


Recorder = Callable[[str, Tensor], None]
"""Receives the name and value of an activation; see `Torso.record`."""


def activation_named(name: str) -> Callable[[Tensor], Tensor]:
    """The function of that name; raises UnknownNameError."""
    if name not in ACTIVATIONS:
        raise UnknownNameError("activation", name, ACTIVATIONS)
    found: Callable[[Tensor], Tensor] = torch.tanh if name == "tanh" else getattr(nn.functional, name)
    return found


class Stack(nn.Module):
    """Linear, LayerNorm with `norm`, activation: once for each entry of `widths`."""

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
        # an affine norm has weights per leading index, which need the axes of tasks and samples apart
        self.merges = not (norm and affine)
        self.activated = len(widths) if activate_last else len(widths) - 1

    def forward(self, inputs: Tensor, record: Recorder | None = None) -> Tensor:
        """[*leading, K, B, inputs] -> [*leading, K, B, widths[-1]]; `record` receives each activation."""
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
                if record is not None:
                    record("hidden", hidden.view(*shape, -1))
        return hidden.view(*shape, self.outputs) if self.merges else hidden
