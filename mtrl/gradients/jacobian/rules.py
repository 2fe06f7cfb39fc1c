"""One gradient per task for the parameters of each operation, from its input and its output's gradient.

Notation: D is the gradient that arrives at the operation's output, X the input it saved. A rule returns rows
[K, *shape], or `Own` where the parameter's leading rows belong to one task each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .graph import Node, Site, Use
from .layouts import TaskLayout


@dataclass(frozen=True)
class Own:
    """The plain gradient of a parameter, and the task that each of its leading rows belongs to."""

    gradient: torch.Tensor
    owner: torch.Tensor

    def dense(self, tasks: int, axis: int = 0) -> torch.Tensor:
        """[K, *shape], mostly zeros; `axis` is the dimension whose entries belong to tasks."""
        mask = self.owner.unsqueeze(0) == torch.arange(tasks, device=self.owner.device).unsqueeze(1)
        after = self.gradient.dim() - axis - 1
        return self.gradient * mask.view(tasks, *[1] * axis, -1, *[1] * after).to(self.gradient)


Found = torch.Tensor | Own


@dataclass(frozen=True, slots=True)
class Product:
    """Rows A^T B per task, not yet multiplied: [K, samples, i] and [K, samples, o] give [K, i, o]; or, where
    n is a dimension of the parameter (an ensemble, experts), [K, n, samples, i] and [K, n, samples, o] give
    [K, n, i, o].
    """

    left: torch.Tensor
    right: torch.Tensor
    scale: float = 1.0

    def pairs(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """A^T [K, i, samples] and B [K, samples, o] of every n."""
        if self.left.dim() == 3:
            return [(self.left.mT, self.right)]
        return [
            (left.mT, right) for left, right in zip(self.left.unbind(1), self.right.unbind(1), strict=True)
        ]

    def rows(self) -> torch.Tensor:
        """[K, i, o], or [K, n, i, o]."""
        products = [torch.bmm(left, right) for left, right in self.pairs()]
        product = products[0] if self.left.dim() == 3 else torch.stack(products, dim=1)
        return product if self.scale == 1.0 else product * self.scale

    def transposed(self) -> Product:
        """The same with the parameter's last two dimensions exchanged."""
        return Product(self.right, self.left, self.scale)


@dataclass(frozen=True)
class Rule:
    """One operation of autograd."""

    dims: Callable[[Site], tuple[int, ...]]
    """Dimensions of D along which tasks may lie; empty where the rule does not serve this use."""
    rows: Callable[[Site, Use, torch.Tensor, TaskLayout], Found | Product]


_FACTORS = {
    "AddmmBackward0": ("_saved_mat1", "_saved_mat2"),
    "BaddbmmBackward0": ("_saved_batch1", "_saved_batch2"),
    "MmBackward0": ("_saved_self", "_saved_mat2"),
    "BmmBackward0": ("_saved_self", "_saved_mat2"),
}
"""Where an operation keeps what it multiplied."""


def _matmul_dims(site: Site) -> tuple[int, ...]:
    first = 1 if site.name in ("AddmmBackward0", "BaddbmmBackward0") else 0
    left = any(use.slot == first for use in site.uses)
    rows = site.shape[:-2]
    if left and any(use.slot == first + 1 for use in site.uses):
        return ()
    samples = len(rows) + (1 if left else 0)
    return (samples, 0) if rows else (samples,)


def _matmul(site: Site, use: Use, d: torch.Tensor, layout: TaskLayout) -> Found | Product:
    """Y = bias + X W: the gradient of W is X^T D."""
    node, first, scale = site.node, 0, 1.0
    if site.name in ("AddmmBackward0", "BaddbmmBackward0"):
        if use.slot == 0:
            # Y = beta bias + alpha X W
            return reduce(d * node._saved_beta if node._saved_beta != 1 else d, layout, use.shape)
        first, scale = 1, float(node._saved_alpha)
    right = use.slot == first + 1
    x = getattr(node, _FACTORS[site.name][0 if right else 1])
    if not right:
        # Y^T = X^T W^T
        x, d = x.mT, d.mT
        if layout.dim == d.dim() - 1:
            layout = TaskLayout(d.dim() - 2, layout.outer, layout.tasks, layout.inner)
    if d.dim() == 3 and layout.dim == 0:
        # one product per task already: per-task heads
        gradient = torch.bmm(x.mT, d)
        gradient = gradient if scale == 1.0 else gradient * scale
        return Own(gradient if right else gradient.mT, layout.owners(d.device))
    # grad_k W = X_k^T D_k over the samples of task k
    product = Product(layout.by_task(x), layout.by_task(d), scale)
    return product if right else product.transposed()


def reduce(d: torch.Tensor, layout: TaskLayout, shape: torch.Size) -> Found:
    """Sums, task by task, over what broadcasting a parameter of `shape` to the shape of `d` repeated."""
    missing = d.dim() - len(shape)
    if d.dim() == 2 and d.shape[1:] == shape and layout.dim == 0 and layout.outer == 1:
        # the bias of a layer, the most frequent case
        return d.reshape(layout.tasks, layout.inner, -1).sum(1)
    full = [1] * missing + list(shape)
    if full[layout.dim] != 1:
        spread = [axis for axis in range(d.dim()) if full[axis] == 1 and d.shape[axis] != 1]
        # a copy where nothing is summed: several parameters may be offsets of one sum
        plain = (d.sum(spread, keepdim=True) if spread else d.clone()).reshape(shape)
        own, axis = Own(plain, layout.owners(d.device)), layout.dim - missing
        return own if axis == 0 else own.dense(layout.tasks, axis)
    rows = layout.by_task(d)
    spread = [axis + 1 for axis in range(d.dim()) if full[axis] == 1]
    return rows.sum(spread).reshape(layout.tasks, *shape)


def _any_dims(site: Site) -> tuple[int, ...]:
    return tuple(range(len(site.shape)))


def _add(site: Site, use: Use, d: torch.Tensor, layout: TaskLayout) -> Found:
    """Y = X + alpha W, or X - alpha W."""
    if use.slot == 1:
        factor = site.node._saved_alpha * (1 if site.name == "AddBackward0" else -1)
        d = d if factor == 1 else d * factor
    return reduce(d, layout, use.shape)


def _mul(site: Site, use: Use, d: torch.Tensor, layout: TaskLayout) -> Found:
    """Y = X W, entry by entry."""
    other = site.node._saved_other if use.slot == 0 else site.node._saved_self
    return reduce(d * other, layout, use.shape)


def _div(site: Site, use: Use, d: torch.Tensor, layout: TaskLayout) -> Found:
    """Y = W / X, or X / W with the gradient -D X / W^2."""
    other = site.node._saved_other
    if use.slot == 0:
        return reduce(d / other, layout, use.shape)
    return reduce(-d * site.node._saved_self / other.square(), layout, use.shape)


def _layer_norm_dims(site: Site) -> tuple[int, ...]:
    if any(use.slot == 0 for use in site.uses):
        # the normalised input is itself a function of parameters
        return ()
    return tuple(range(len(site.shape) - len(site.node._saved_normalized_shape)))


def _layer_norm(site: Site, use: Use, d: torch.Tensor, layout: TaskLayout) -> Found:
    """Y = weight * (X - mean) / deviation + bias; X itself is slot 0."""
    if use.slot != 1:
        return reduce(d, layout, use.shape)
    node = site.node
    centred = (node._saved_input - node._saved_result1).mul_(d)
    inverse = node._saved_result2
    if layout.dim == 0 and layout.outer == 1 and len(use.shape) == 1:
        # The division by the deviation and the sum over samples are one product.
        rows = centred.view(layout.tasks, -1, use.shape[0])
        return torch.bmm(inverse.reshape(layout.tasks, 1, -1).to(rows.dtype), rows).squeeze(1)
    return reduce(centred.mul_(inverse), layout, use.shape)


def _group_norm(site: Site, use: Use, d: torch.Tensor, layout: TaskLayout) -> Found:
    """The same over groups of channels; weight and bias are [channels], at dimension 1 of D."""
    node = site.node
    if use.slot == 1:
        grouped = node._saved_input.reshape(node._saved_N, node._saved_group, -1)
        standard = (grouped - node._saved_result1.unsqueeze(-1)) * node._saved_result2.unsqueeze(-1)
        d = d * standard.reshape(d.shape)
    gradients = layout.by_task(d)
    return gradients.sum([axis for axis in range(1, gradients.dim()) if axis != 2])


def _batch_norm_dims(site: Site) -> tuple[int, ...]:
    # of instance normalisation every sample and channel is a channel
    return () if any(use.slot == 0 for use in site.uses) else (1, 0, *range(2, len(site.shape)))


def _batch_norm(site: Site, use: Use, d: torch.Tensor, layout: TaskLayout) -> Found:
    """Y = weight * (X - mean) / deviation + bias, a number per channel at dimension 1 of D."""
    node, shape = site.node, torch.Size((*use.shape, *[1] * (d.dim() - 2)))
    if use.slot == 1:
        mean, inverse = node._saved_result1, node._saved_result2
        if not node._saved_training:
            mean, inverse = node._saved_running_mean, (node._saved_running_var + node._saved_eps).rsqrt()
        d = d * (node._saved_input - mean.view(shape)) * inverse.view(shape)
    found = reduce(d, layout, shape)
    if isinstance(found, Own):
        return Own(found.gradient.reshape(use.shape), found.owner)
    return found.reshape(layout.tasks, *use.shape)


def _convolution_dims(site: Site) -> tuple[int, ...]:
    return (0,) if all(use.slot in (1, 2) for use in site.uses) else ()


def _convolution(site: Site, use: Use, d: torch.Tensor, layout: TaskLayout) -> Found:
    """One weight gradient per task, over its own samples."""
    gradients = layout.by_task(d)
    if use.slot == 2:
        return gradients.sum([axis for axis in range(1, gradients.dim()) if axis != 2])
    node = site.node
    weight = node._saved_weight
    images = layout.by_task(node._saved_input)
    rows = [
        torch.ops.aten.convolution_backward(
            gradients[task], images[task], weight, None, node._saved_stride, node._saved_padding,
            node._saved_dilation, node._saved_transposed, node._saved_output_padding, node._saved_groups,
            [False, True, False],
        )[1]
        for task in range(layout.tasks)
    ]  # fmt: skip
    return torch.stack(rows)


def _index_of(node: Node, name: str) -> torch.Tensor | None:
    """Indices along the parameter's first dimension, or None for any other indexing."""
    if name == "EmbeddingBackward0":
        plain = not node._saved_scale_grad_by_freq and not node._saved_sparse
        return node._saved_indices if plain else None
    if name == "IndexSelectBackward0":
        return node._saved_index if node._saved_dim == 0 else None
    indices = node._saved_indices
    if len(indices) != 1 or indices[0] is None or indices[0].dtype == torch.bool:
        return None
    only: torch.Tensor = indices[0]
    return only


def _pick_dims(site: Site) -> tuple[int, ...]:
    index = _index_of(site.node, site.name)
    return () if index is None else tuple(range(index.dim()))


def _pick(site: Site, use: Use, d: torch.Tensor, layout: TaskLayout) -> Found:
    """Y = W[index]: the gradient of W is the sum of D at every index."""
    index = _index_of(site.node, site.name)
    assert index is not None, "a site whose rule names no dimensions has no rows"
    count, owner = use.shape[0], layout.owners(d.device)
    owner = owner.view(-1, *[1] * (index.dim() - layout.dim - 1)).expand(index.shape).reshape(-1)
    rows = index.reshape(-1).remainder(count)
    values = d.reshape(len(rows), *use.shape[1:])
    if site.name == "EmbeddingBackward0" and site.node._saved_padding_idx >= 0:
        # -1, no padding, is stored unsigned, as an index that no row has
        values = values * (rows != site.node._saved_padding_idx).view(-1, *[1] * (values.dim() - 1))
    if index.dim() == 1 and layout.inner == 1 and len(torch.unique(rows)) == len(rows):
        owners = torch.zeros(count, dtype=torch.long, device=d.device).index_copy(0, rows, owner)
        return Own(values.new_zeros(use.shape).index_copy(0, rows, values), owners)
    total = values.new_zeros(layout.tasks * count, *use.shape[1:])
    return total.index_add(0, owner * count + rows, values).view(layout.tasks, *use.shape)


RULES: dict[str, Rule] = {
    "AddmmBackward0": Rule(_matmul_dims, _matmul),
    "MmBackward0": Rule(_matmul_dims, _matmul),
    "BmmBackward0": Rule(_matmul_dims, _matmul),
    "BaddbmmBackward0": Rule(_matmul_dims, _matmul),
    "AddBackward0": Rule(_any_dims, _add),
    "SubBackward0": Rule(_any_dims, _add),
    "MulBackward0": Rule(_any_dims, _mul),
    "DivBackward0": Rule(_any_dims, _div),
    "ExpandBackward0": Rule(_any_dims, lambda site, use, d, layout: reduce(d, layout, use.shape)),
    "NativeLayerNormBackward0": Rule(_layer_norm_dims, _layer_norm),
    "NativeBatchNormBackward0": Rule(_batch_norm_dims, _batch_norm),
    "CudnnBatchNormBackward0": Rule(_batch_norm_dims, _batch_norm),
    "NativeGroupNormBackward0": Rule(_convolution_dims, _group_norm),
    "ConvolutionBackward0": Rule(_convolution_dims, _convolution),
    "EmbeddingBackward0": Rule(_pick_dims, _pick),
    "IndexBackward0": Rule(_pick_dims, _pick),
    "IndexSelectBackward0": Rule(_pick_dims, _pick),
}
