"""Collects rows as the backward pass reaches them: keeps them, or adds them to the Gramian."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache, partial

import torch
from torch import nn
from torch.autograd.graph import GradientEdge

from .graph import Site, Use
from .layouts import TaskLayout
from .rank_blocks import RankBlocks
from .rows import OwnedRows, TaskRows, as_it_is, gramian_of, row_buffer
from .rules import RULES, Found, Own, Product

_TRANSPOSING = "TBackward0"
_CASTING = "ToCopyBackward0"
_FLATTENING = frozenset({_CASTING, "ViewBackward0", "UnsafeViewBackward0", "UnsqueezeBackward0"})


class Collector(ABC):
    """Takes rows site by site, for parameters given by index."""

    def __init__(self, tasks: int, named: Mapping[str, nn.Parameter]) -> None:
        self.tasks, self.names, self.parameters = tasks, list(named), list(named.values())
        self.slow: Collection[int] = ()
        self._rows: dict[int, torch.Tensor] = {}
        self._owned: dict[int, list[OwnedRows]] = {}
        self._pending: dict[tuple[object, int], tuple[Use, torch.Tensor]] = {}

    def expect(self, uses: Iterable[Use], slow: Collection[int]) -> None:
        """Announces every use that `visit` will bring; rows of `slow` parameters come by `add_rows`."""
        self.slow = slow

    def visit(self, site: Site, layout: TaskLayout, d: torch.Tensor) -> None:
        """Adds rows of all parameters of one site; `d` is the gradient of its output. Autograd is off."""
        for use in site.uses:
            if self.slow and self._skipped(use):
                continue
            found = RULES[site.name].rows(site, use, d, layout)
            if layout.members is not None:
                found = _among_all(found, layout.members, self.tasks)
            if isinstance(found, Own):
                if use.reshaped:
                    for index in use.parameters:
                        own = _of_parameter(use, found, self.parameters[index])
                        self._owned.setdefault(index, []).append(own)
                    self._done(use)
                    continue
                found = found.dense(self.tasks)
            transposed = _transposed(use.path)
            if transposed is not None:
                index = use.parameters[0]
                if isinstance(found, Product):
                    self.add_product(index, found.transposed() if transposed else found)
                else:
                    self.add_rows(index, found.mT if transposed else found)
                self._done(use)
                continue
            rows = found.rows() if isinstance(found, Product) else found
            key = (use.node, use.output)
            kept = self._pending.get(key)
            self._pending[key] = (use, rows if kept is None else kept[1] + rows)

    def _skipped(self, use: Use) -> bool:
        return any(index in self.slow for index in use.parameters)

    def _done(self, use: Use) -> None:  # noqa: B027 - only the Gramian counts the uses
        """Called after every visited use whose rows were added."""

    def _settle(self) -> dict[str, OwnedRows]:
        """Completes the shared rows; returns what single tasks own, by name."""
        # rows of functions of parameters (a slice, a merged LoRA weight), brought to the parameters
        for use, rows in self._pending.values():
            gradients = torch.autograd.grad(
                [GradientEdge(use.node, use.output)], [self.parameters[index] for index in use.parameters],
                [rows], is_grads_batched=True, retain_graph=True, allow_unused=True,
            )  # fmt: skip
            for index, row in zip(use.parameters, gradients, strict=True):
                if row is not None:
                    self.add_rows(index, row)
        self._pending.clear()
        owned = {}
        for index, parts in self._owned.items():
            merged = merge_owned(parts)
            if merged is not None and index not in self._rows:
                owned[self.names[index]] = merged
                continue
            for part in parts:
                self.add_rows(index, part.dense(self.tasks))
        return owned

    @abstractmethod
    def add_rows(self, index: int, rows: torch.Tensor) -> None:
        """Adds [K, *shape] to a parameter's rows."""

    @abstractmethod
    def add_product(self, index: int, product: Product) -> None:
        """Adds A^T B per task to a parameter's rows."""


class RowCollector(Collector):
    """Keeps all rows: K x P numbers, in buffers that the next step overwrites."""

    def __init__(
        self, tasks: int, named: Mapping[str, nn.Parameter], buffers: dict[tuple[str, int], torch.Tensor]
    ) -> None:
        super().__init__(tasks, named)
        self._buffers = buffers

    def _buffer(self, index: int) -> torch.Tensor:
        key = (self.names[index], self.tasks)
        parameter = self.parameters[index]
        buffer = self._buffers.get(key)
        if buffer is None or buffer.dtype != parameter.dtype or buffer.device != parameter.device:
            buffer = self._buffers[key] = row_buffer((self.tasks, *parameter.shape), parameter)
        return buffer

    def add_rows(self, index: int, rows: torch.Tensor) -> None:
        kept = self._rows.get(index)
        if kept is None:
            self._rows[index] = self._buffer(index).copy_(rows)
        else:
            kept += rows.view(kept.shape)

    def add_product(self, index: int, product: Product) -> None:
        kept = self._rows.get(index)
        buffer = self._buffer(index) if kept is None else kept
        if product.left.dtype != buffer.dtype:
            self.add_rows(index, product.rows())
            return
        beta = 0 if kept is None else 1
        places = [buffer] if product.left.dim() == 3 else buffer.unbind(1)
        for (left, right), out in zip(product.pairs(), places, strict=True):
            torch.baddbmm(out, left, right, beta=beta, alpha=product.scale, out=out)
        self._rows[index] = buffer

    def finish(self) -> TaskRows:
        """All rows, by parameter name."""
        owned = self._settle()
        return TaskRows(self.tasks, {self.names[n]: self._rows[n] for n in sorted(self._rows)}, owned)


class GramianCollector(Collector):
    """Keeps only G = J J^T; rows are freed after the last use of their parameter."""

    def __init__(
        self, tasks: int, named: Mapping[str, nn.Parameter], scratch_mb: float, blocks: RankBlocks | None
    ) -> None:
        """`blocks` takes the rows where they are added over ranks first."""
        super().__init__(tasks, named)
        self._blocks, self._scratch = blocks, int(scratch_mb * 2**20)
        device = self.parameters[0].device
        self._total = torch.zeros(tasks, tasks, dtype=torch.float64, device=device)
        self.owned_names: tuple[str, ...] = ()
        self._remaining: Counter[int] = Counter()

    def expect(self, uses: Iterable[Use], slow: Collection[int]) -> None:
        super().expect(uses, slow)
        self._remaining = Counter(index for use in uses if not self._skipped(use) for index in use.parameters)

    def add_rows(self, index: int, rows: torch.Tensor) -> None:
        if index in self._rows:
            self._rows[index] += rows
        else:
            self._rows[index] = rows.clone() if self._remaining[index] > 1 else rows

    def add_product(self, index: int, product: Product) -> None:
        if self._remaining[index] > 1 or index in self._rows or index in self._owned:
            self.add_rows(index, product.rows())
            return
        left, right = product.left, product.right
        per_column = self.tasks * left.shape[-1] * left.element_size()
        width = max(1, min(right.shape[-1], self._scratch // max(1, per_column)))
        for transposed, whole in product.pairs():
            for columns in whole.split(width, dim=-1):
                self._add(index, torch.bmm(transposed, columns), product.scale)

    def _done(self, use: Use) -> None:
        for index in use.parameters:
            self._remaining[index] -= 1
            if self._remaining[index] == 0 and index in self._rows and index not in self._owned:
                self._add(index, self._rows.pop(index))

    def _add(self, index: int, rows: torch.Tensor, scale: float = 1.0) -> None:
        if self._blocks is None:
            self._total += gramian_of([rows], self.tasks) * scale**2
        else:
            self._blocks.add(self.names[index], rows if scale == 1.0 else rows * scale)

    def finish(self) -> torch.Tensor:
        """[K, K] float64 on the CPU."""
        self.owned_names = tuple(self._settle())
        if self._blocks is not None:
            for index, rows in self._rows.items():
                self._add(index, rows)
            return self._blocks.finish()
        if self._rows:
            self._total += gramian_of(list(self._rows.values()), self.tasks)
        return self._total.cpu()


@lru_cache(maxsize=256)
def _transposed(path: tuple[str, ...]) -> bool | None:
    """Whether the operations of a path transpose; None where they do more than that and casts."""
    simple = all(name in (_TRANSPOSING, _CASTING) for name in path)
    return path.count(_TRANSPOSING) % 2 == 1 if simple else None


def _among_all(found: Found | Product, members: tuple[int, ...], tasks: int) -> Found:
    """What was found for some tasks, numbered among all; the others have rows of zeros."""
    if isinstance(found, Own):
        place = torch.tensor(members, device=found.owner.device)
        return Own(found.gradient, place[found.owner])
    rows = found.rows() if isinstance(found, Product) else found
    if len(members) == 1:
        return Own(rows[0], torch.full((rows.shape[1],), members[0], device=rows.device))
    whole = rows.new_zeros(tasks, *rows.shape[1:])
    whole[list(members)] = rows
    return whole


def merge_owned(parts: Sequence[OwnedRows]) -> OwnedRows | None:
    """One set of rows in the parameter's own form, or None where tasks own different rows in each use."""
    first, *others = parts
    total = first.gradient
    for part in others:
        if part.gradient.shape != first.gradient.shape or not torch.equal(part.owner, first.owner):
            return None
        total = total + part.gradient
    return OwnedRows(total, first.owner, first.pull, first.by_rows)


def _of_parameter(use: Use, own: Own, parameter: nn.Parameter) -> OwnedRows:
    by_rows = len(own.owner) == len(parameter) and _FLATTENING.issuperset(use.path)
    pull = partial(_pull, use, parameter) if use.path else as_it_is
    return OwnedRows(own.gradient, own.owner, pull, by_rows)


def _pull(use: Use, parameter: nn.Parameter, gradient: torch.Tensor) -> torch.Tensor:
    edge = GradientEdge(use.node, use.output)
    (found,) = torch.autograd.grad([edge], [parameter], [gradient], retain_graph=True)
    return found
