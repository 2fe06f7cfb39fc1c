"""The few layers with parameters that every multi-task network here is made of.

One shape rule holds for all of them, so that the gradient of every task can be read off one backward
pass: the last axis holds features, the one before it samples B, the one before that tasks K, and
whatever is left of those are the `leading` axes that have weights of their own (N ensemble members,
E experts). Samples of different tasks never meet inside a layer. Layers that treat all tasks alike also
take the axes of tasks and samples as one, tasks outermost.
"""

from __future__ import annotations

import math

import torch
from torch import nn

Leading = tuple[int, ...]
"""Sizes of the axes that own separate weights, e.g. (N,) for an ensemble or (N, E) for its experts."""


def fill_uniform(parameter: torch.Tensor, bound: float, generator: torch.Generator | None) -> None:
    """Draws every entry from U(-bound, bound)."""
    with torch.no_grad():
        parameter.uniform_(-bound, bound, generator=generator)


def fill_he_uniform(parameter: torch.Tensor, inputs: int, generator: torch.Generator | None) -> None:
    """U(+-sqrt(6 / inputs)), which keeps the variance through ReLU (He et al. 2015, equation 10)."""
    fill_uniform(parameter, math.sqrt(6.0 / inputs), generator)


class BatchedLinear(nn.Module):
    """One dense layer per leading index, all in a single batched product.

    weight [*leading, inputs, outputs], bias [*leading, outputs]. The gradient of task k is
    X_k^T D_k and the sum of D_k over samples, with X the input and D the gradient of the output.
    """

    bias: torch.Tensor | None

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

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
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


class TaskLinear(nn.Module):
    """One dense layer per task: a sample passes only through the layer of its own task.

    weight [*leading, T, inputs, outputs], bias [*leading, T, outputs] for all T tasks of the set.
    The gradient of task k touches only row task_index[k].
    """

    def __init__(
        self,
        leading: Leading,
        tasks: int,
        inputs: int,
        outputs: int,
        *,
        bound: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Weights are He-uniform, or U(+-`bound`) when given; biases start at zero."""
        super().__init__()
        self.leading = leading
        self.weight = nn.Parameter(torch.empty(*leading, tasks, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(*leading, tasks, outputs))
        if bound is None:
            fill_he_uniform(self.weight, inputs, generator)
        else:
            fill_uniform(self.weight, bound, generator)

    def forward(self, inputs: torch.Tensor, task_index: torch.Tensor | None) -> torch.Tensor:
        """[*leading, K, B, inputs], task_index [K] -> [*leading, K, B, outputs]

        None stands for every task in order, for which no weights need to be gathered.
        """
        weight = self.weight.reshape(-1, *self.weight.shape[-2:])
        bias = self.bias.reshape(-1, 1, self.bias.shape[-1])
        if task_index is not None:
            rows = _rows(self.weight.shape[:-2], task_index)
            weight, bias = weight.index_select(0, rows), bias.index_select(0, rows)
        out = torch.baddbmm(bias, inputs.reshape(-1, *inputs.shape[-2:]), weight)
        return out.reshape(*inputs.shape[:-1], weight.shape[-1])


class ComposedLinear(nn.Module):
    """A dense layer whose weights are a mixture of J parameter sets, another mixture for each task.

    y = x W_k + b_k with W_k = sum_j m_kj W_j and b_k = sum_j m_kj b_j. The sets are mixed before they
    are applied, which costs J times fewer products than mixing J outputs whenever B is above J.
    weight [*leading, J, inputs, outputs], bias [*leading, J, outputs]. The gradient of task k is
    m_kj X_k^T D_k for W_j, and <W_j, X_k^T D_k> + <b_j, sum D_k> for m_kj.
    """

    def __init__(
        self,
        leading: Leading,
        sets: int,
        inputs: int,
        outputs: int,
        *,
        bound: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Weights are He-uniform, or U(+-`bound`) when given; biases start at zero."""
        super().__init__()
        self.leading = leading
        self.weight = nn.Parameter(torch.empty(*leading, sets, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(*leading, sets, outputs))
        if bound is None:
            fill_he_uniform(self.weight, inputs, generator)
        else:
            fill_uniform(self.weight, bound, generator)

    def forward(self, inputs: torch.Tensor, mixture: torch.Tensor) -> torch.Tensor:
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

    weight: torch.Tensor | None
    bias: torch.Tensor | None

    def __init__(self, leading: Leading, width: int, *, affine: bool = True, floor: float = 1e-5) -> None:
        """`floor` is added to the variance."""
        super().__init__()
        self.leading = leading
        self.width = width
        self.floor = floor
        self.register_parameter("weight", nn.Parameter(torch.ones(*leading, width)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(*leading, width)) if affine else None)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[*leading, K, B, width] -> the same shape; without `affine`, K and B may be one axis."""
        normal = torch.layer_norm(inputs, (self.width,), None, None, self.floor)
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
        self.leading = leading
        self.weight = nn.Parameter(torch.empty(*leading, tasks, width))
        fill_uniform(self.weight, bound, generator)

    def forward(self, task_index: torch.Tensor) -> torch.Tensor:
        """task_index [K] -> [*leading, K, 1, width]"""
        width = self.weight.shape[-1]
        rows = self.weight.reshape(-1, width).index_select(0, _rows(self.weight.shape[:-1], task_index))
        return rows.reshape(*self.leading, -1, 1, width)


def mixture_bound(parts: int) -> float:
    """sqrt(3 / parts): rows U(+-bound) have expected squared length 1, so that a mixture of `parts`
    independent parts keeps their variance whatever the number of tasks.
    """
    return math.sqrt(3.0 / parts)


def _rows(axes: torch.Size, task_index: torch.Tensor) -> torch.Tensor:
    """Where the rows of `task_index` [K] lie once the axes [*leading, T] are one: [prod(leading) * K]."""
    blocks = torch.arange(axes[:-1].numel(), device=task_index.device) * axes[-1]
    return (blocks[:, None] + task_index).flatten()
