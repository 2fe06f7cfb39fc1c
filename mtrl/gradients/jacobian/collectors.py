"""What happens to rows as the backward pass reaches them: kept, or summed into the Gramian."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache, partial

import torch
from torch import nn
from torch.autograd.graph import GradientEdge

from .graph import Site, Use
from .layouts import TaskLayout
from .rank_blocks import RankBlocks
from .rows import OwnedRows, TaskRows, as_it_is, gramian_of, row_buffer
from .rules import Found, Own, Product, Rule

_TURNING = "TBackward0"
_CASTING = "ToCopyBackward0"
_FLATTENING = frozenset({_CASTING, "ViewBackward0", "UnsafeViewBackward0", "UnsqueezeBackward0"})


class Collector(ABC):
    """Takes rows site by site, for parameters given by index."""

    def __init__(self, tasks: int, names: Sequence[str], parameters: Sequence[nn.Parameter]) -> None:
        self.tasks = tasks
        self.names = names
        self.parameters = parameters
        self.slow: Collection[int] = ()
        self._pending: dict[tuple[object, int], tuple[Use, torch.Tensor]] = {}

    def expect(self, uses: Iterable[Use], slow: Collection[int]) -> None:
        """Announces every use that `visit` will bring; rows of `slow` parameters come by `add_rows`."""
        self.slow = slow

    def visit(self, site: Site, layout: TaskLayout, d: torch.Tensor, rule: Rule) -> None:
        """Rows of all parameters of one site; `d` is the gradient of its output. Autograd is off."""
        for use in site.uses:
            if self.slow and self._skipped(use):
                continue
            found = rule.rows(site, use, d, layout)
            if layout.members is not None:
                found = _among_all(found, layout.members, self.tasks)
            if isinstance(found, Own):
                if use.reshaped:
                    self.add_owned(use, found)
                    self._done(use)
                    continue
                found = dense(found, self.tasks)
            turned = _turned(use.path)
            if turned is not None:
                index = use.parameters[0]
                if isinstance(found, Product):
                    self.add_product(index, found.transposed() if turned else found)
                else:
                    self.add_rows(index, found.mT if turned else found)
                self._done(use)
                continue
            rows = found.rows() if isinstance(found, Product) else found
            key = (use.node, use.output)
            kept = self._pending.get(key)
            self._pending[key] = (use, rows if kept is None else kept[1] + rows)

    def _skipped(self, use: Use) -> bool:
        return any(index in self.slow for index in use.parameters)

    @abstractmethod
    def _done(self, use: Use) -> None:
        """Hears that a use was visited."""

    def _settle(self) -> None:
        """Brings rows of functions of parameters (a slice, a merged LoRA weight) to the parameters."""
        for use, rows in self._pending.values():
            wanted = [self.parameters[index] for index in use.parameters]
            edge = GradientEdge(use.node, use.output)
            found = torch.autograd.grad(
                [edge], wanted, [rows], is_grads_batched=True, retain_graph=True, allow_unused=True
            )
            for index, row in zip(use.parameters, found, strict=True):
                if row is not None:
                    self.add_rows(index, row)
        self._pending.clear()

    @abstractmethod
    def add_rows(self, index: int, rows: torch.Tensor) -> None:
        """Adds [K, *shape] to a parameter's rows."""

    @abstractmethod
    def add_product(self, index: int, product: Product) -> None:
        """Adds A^T B per task to a parameter's rows."""

    @abstractmethod
    def add_owned(self, use: Use, own: Own) -> None:
        """Takes rows of which each belongs to one task."""


class RowCollector(Collector):
    """Keeps all rows: K x P numbers, in buffers that the next step writes anew."""

    def __init__(
        self,
        tasks: int,
        names: Sequence[str],
        parameters: Sequence[nn.Parameter],
        buffers: dict[tuple[str, int], torch.Tensor],
    ) -> None:
        super().__init__(tasks, names, parameters)
        self._buffers = buffers
        self._rows: dict[int, torch.Tensor] = {}
        self._owned: dict[int, list[tuple[Use, Own]]] = {}

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
        for (turned, right), out in zip(product.pairs(), places, strict=True):
            torch.baddbmm(out, turned, right, beta=beta, alpha=product.scale, out=out)
        self._rows[index] = buffer

    def add_owned(self, use: Use, own: Own) -> None:
        for index in use.parameters:
            self._owned.setdefault(index, []).append((use, own))

    def _done(self, use: Use) -> None:
        pass

    def finish(self) -> TaskRows:
        """All rows, by parameter name."""
        self._settle()
        owned = {}
        for index, parts in self._owned.items():
            merged = merge_owned([_to_parameter(use, own, self.parameters[index]) for use, own in parts])
            if merged is None or index in self._rows:
                for use, own in parts:
                    self.add_rows(index, _to_parameter(use, own, self.parameters[index]).dense(self.tasks))
            else:
                owned[self.names[index]] = merged
        order = sorted(self._rows)
        return TaskRows(self.tasks, {self.names[index]: self._rows[index] for index in order}, owned)


class GramianCollector(Collector):
    """Keeps only G = J J^T; rows live until the last use of their parameter was visited."""

    def __init__(
        self,
        tasks: int,
        names: Sequence[str],
        parameters: Sequence[nn.Parameter],
        scratch_mb: float,
        blocks: RankBlocks | None = None,
    ) -> None:
        """`blocks` takes the rows where they are added over ranks first."""
        super().__init__(tasks, names, parameters)
        self._blocks = blocks
        self._scratch = int(scratch_mb * 2**20)
        self._total = torch.zeros(tasks, tasks, dtype=torch.float64, device=parameters[0].device)
        self.owned_names: list[str] = []
        self._remaining: Counter[int] = Counter()
        self._rows: dict[int, torch.Tensor] = {}
        self._owned: dict[int, list[tuple[Use, Own]]] = {}

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
        for turned, every in product.pairs():
            for columns in every.split(width, dim=-1):
                self._add(index, torch.bmm(turned, columns), product.scale)

    def add_owned(self, use: Use, own: Own) -> None:
        for index in use.parameters:
            self._owned.setdefault(index, []).append((use, own))

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
        """[K, K] float64 on the processor."""
        self._settle()
        for index, parts in self._owned.items():
            merged = merge_owned([_to_parameter(use, own, self.parameters[index]) for use, own in parts])
            if merged is None or index in self._rows:
                for use, own in parts:
                    self.add_rows(index, _to_parameter(use, own, self.parameters[index]).dense(self.tasks))
            else:
                self.owned_names.append(self.names[index])
        if self._blocks is not None:
            for index, rows in self._rows.items():
                self._add(index, rows)
            return self._blocks.finish()
        if self._rows:
            self._total += gramian_of(list(self._rows.values()), self.tasks)
        return self._total.cpu()


@lru_cache(maxsize=256)
def _turned(path: tuple[str, ...]) -> bool | None:
    """Whether the operations of a path exchange dimensions; None where they do more than that and casts."""
    simple = all(name in (_TURNING, _CASTING) for name in path)
    return path.count(_TURNING) % 2 == 1 if simple else None


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


def dense(own: Own, tasks: int) -> torch.Tensor:
    """[K, *shape] of rows that belong to one task each."""
    mask = own.owner.unsqueeze(0) == torch.arange(tasks, device=own.owner.device).unsqueeze(1)
    shape = own.gradient.shape
    return own.gradient * mask.view(tasks, -1, *[1] * (len(shape) - 1)).to(own.gradient)


def merge_owned(parts: Sequence[OwnedRows]) -> OwnedRows | None:
    """One set of rows in the parameter's own form, or None where tasks own different rows in each use."""
    first = parts[0]
    for part in parts[1:]:
        if part.gradient.shape != first.gradient.shape or not torch.equal(part.owner, first.owner):
            return None
    total = first.gradient
    for part in parts[1:]:
        total = total + part.gradient
    return OwnedRows(total, first.owner, first.pull, first.by_rows)


def _to_parameter(use: Use, own: Own, parameter: nn.Parameter) -> OwnedRows:
    pull: Callable[[torch.Tensor], torch.Tensor] = partial(_pull, use, parameter) if use.path else as_it_is
    by_rows = len(own.owner) == len(parameter) and _FLATTENING.issuperset(use.path)
    return OwnedRows(own.gradient, own.owner, pull, by_rows)


def _pull(use: Use, parameter: nn.Parameter, gradient: torch.Tensor) -> torch.Tensor:
    (found,) = torch.autograd.grad(
        [GradientEdge(use.node, use.output)], [parameter], [gradient], retain_graph=True
    )
    return found


__all__ = ["Collector", "Found", "GramianCollector", "RowCollector"]
