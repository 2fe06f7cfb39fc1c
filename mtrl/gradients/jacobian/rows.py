"""Gradients of K losses: rows of shared parameters, and blocks of task-specific ("owned") ones."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import torch

_PIECE = {"cpu": 2048}
"""Kind of device -> columns multiplied at a time, which fit into a processor's cache as float64; 2^16
elsewhere."""
_LONG = 2048
"""Columns of a product in float32: few long rows are slow to multiply whole, and lose two more digits."""
_INDEPENDENT = 1e-3
"""Eigenvalue of the cosines down to which products in float32, whose rounding is 1e-8, turn no update."""
HUGE_PAGE = 2**21
"""Bytes, on x86 and on most of ARM."""


@dataclass
class OwnedRows:
    """Gradients of a parameter whose leading rows each belong to one task, as in per-task heads: all K in one
    tensor.
    """

    gradient: torch.Tensor
    """[n, ...], the gradient of the summed losses, in the form in which the network uses it."""
    owner: torch.Tensor
    """[n], the task of every row; not to be written to."""
    pull: Callable[[torch.Tensor], torch.Tensor]
    """Brings a gradient of that form into the parameter's shape."""
    by_rows: bool = False
    """Whether `owner` also holds for the leading rows of the parameter itself."""

    def weighted(self, weights: torch.Tensor) -> torch.Tensor:
        """sum_k weights[k] * row k, in the parameter's shape."""
        scale = weights.to(self.gradient)[self.owner]
        return self.pull(self.gradient * scale.view(-1, *[1] * (self.gradient.dim() - 1)))

    def of_parameter(self, gradient: torch.Tensor) -> OwnedRows:
        """Rows like these from a gradient in the parameter's shape, entry by entry unless `by_rows`."""
        if self.by_rows:
            return OwnedRows(gradient, self.owner, as_it_is, True)
        used = (self.owner + 1).to(self.gradient).view(-1, *[1] * (self.gradient.dim() - 1))
        # an entry that no task uses becomes 0; its gradient is 0 too
        owner = self.pull(used.expand_as(self.gradient)).flatten().long().sub_(1).clamp_min_(0)
        return OwnedRows(gradient.flatten(), owner, partial(torch.reshape, shape=gradient.shape))

    def dense(self, tasks: int) -> torch.Tensor:
        """[K, *parameter shape], mostly zeros."""
        return torch.stack([self.weighted(row) for row in torch.eye(tasks, device=self.gradient.device)])


@dataclass
class TaskRows:
    """The Jacobian of K losses by named parameters; the next call for rows overwrites its tensors."""

    tasks: int
    shared: dict[str, torch.Tensor] = field(default_factory=dict)
    """Parameter name -> [K, *parameter shape]."""
    owned: dict[str, OwnedRows] = field(default_factory=dict)
    """Parameter name -> rows of single tasks, which surgery does not change."""

    def gramian(self) -> torch.Tensor:
        """[K, K] float64 on the CPU, inner products of the shared rows: multiplied in float64 where tasks are
        near to dependent, which float32 cannot tell from independent.
        """
        rows = list(self.shared.values())
        if all(item.dtype != torch.float64 for item in rows):
            rough = _rough_gramian(rows, self.tasks).cpu()
            cosine = cosines(rough).fill_diagonal_(1.0)
            if not bool(cosine.isfinite().all()) or torch.linalg.eigvalsh(cosine)[0] > _INDEPENDENT:
                return rough
        return gramian_of(rows, self.tasks).cpu()

    def products(self, others: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """[K, K] float64 on the CPU, inner products of the shared rows with those of `others`, a column each;
        a parameter that is not in both counts as 0.
        """
        shared = [(rows, others[name].to(rows)) for name, rows in self.shared.items() if name in others]
        return products_of([rows for rows, _ in shared], [other for _, other in shared], self.tasks).cpu()

    def combine(
        self, weights: torch.Tensor, owned_weights: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Parameter name -> sum_k weights[k] * row k; `owned_weights` [K], 1 unless given, weigh what tasks
        own.
        """
        owned_weights = torch.ones_like(weights) if owned_weights is None else owned_weights
        combined = {
            name: (weights.to(rows) @ rows.reshape(self.tasks, -1)).view(rows.shape[1:])
            for name, rows in self.shared.items()
        }
        return combined | {name: rows.weighted(owned_weights) for name, rows in self.owned.items()}

    def sums(self) -> dict[str, torch.Tensor]:
        """Every tensor that adds up over batches, by parameter name."""
        return {**self.shared, **{name: rows.gradient for name, rows in self.owned.items()}}


def gramian_of(rows: Sequence[torch.Tensor], tasks: int) -> torch.Tensor:
    """[K, K] float64 on the device of `rows`, each [K, ...]: sum of rows rows^T."""
    return products_of(rows, rows, tasks)


def _rough_gramian(rows: Sequence[torch.Tensor], tasks: int) -> torch.Tensor:
    """The same from products in float32, twice as fast."""
    device = rows[0].device if rows else torch.device("cpu")
    total = torch.zeros(tasks, tasks, dtype=torch.float64, device=device)
    with torch.autocast(device.type, enabled=False):
        for item in rows:
            flat = item.reshape(tasks, -1).float()
            pieces = flat.shape[1] // _LONG
            if pieces > 1:
                long = flat[:, : pieces * _LONG].unflatten(1, (pieces, _LONG)).transpose(0, 1)
                total += torch.bmm(long, long.mT).sum(0, dtype=torch.float64)
                flat = flat[:, pieces * _LONG :]
            total += flat @ flat.T
    return total


def products_of(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor], tasks: int) -> torch.Tensor:
    """[K, K] float64 on the device of the rows, each [K, ...]: sum of left right^T.

    Multiplied in float64, since weightings divide by eigenvalues: the rounding of products in float32 has
    full rank, and would pass for tasks that do not exist.
    """
    device = left[0].device if left else torch.device("cpu")
    total = torch.zeros(tasks, tasks, dtype=torch.float64, device=device)
    size = _PIECE.get(device.type, 2**16)
    scratch = torch.empty(2, tasks, size, dtype=torch.float64, device=device)
    with torch.autocast(device.type, enabled=False):
        for one, other in zip(left, right, strict=True):
            pieces = zip(
                one.reshape(tasks, -1).split(size, 1), other.reshape(tasks, -1).split(size, 1), strict=True
            )
            for first, second in pieces:
                wide = scratch[0, :, : first.shape[1]].copy_(first)
                across = wide if one is other else scratch[1, :, : first.shape[1]].copy_(second)
                total.addmm_(wide, across.T)
    return total


def cosines(gramian: torch.Tensor) -> torch.Tensor:
    """[K, K], cosines between task gradients; 0 where one of them is zero."""
    norms = gramian.diagonal().clamp_min(0).sqrt()
    product = norms.unsqueeze(0) * norms.unsqueeze(1)
    return torch.where(product > 0, gramian / product.clamp_min(torch.finfo(product.dtype).tiny), 0.0)


def as_it_is(gradient: torch.Tensor) -> torch.Tensor:
    """The `pull` of a parameter that the network uses in its own shape."""
    return gradient


def row_buffer(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Uninitialised, of the type and on the device of `like`; in huge pages where Linux grants them.

    K rows of a layer span hundreds of small pages, more than the TLB of a CPU holds.
    """
    size = math.prod(shape) * like.element_size()
    if like.device.type != "cpu" or size < HUGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    # a shared mapping, the default, has small pages and is written to by forked processes
    memory = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    start = -torch.frombuffer(memory, dtype=torch.uint8).data_ptr() % HUGE_PAGE
    return torch.frombuffer(memory, dtype=like.dtype, count=math.prod(shape), offset=start).view(shape)
