"""Task gradients of several data-parallel ranks, added up before they are weighted."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import torch
from torch import nn

from mtrl.errors import UnsupportedError
from mtrl.reducer import Like, Reducer, Sums

from .jacobian import OwnedRows, TaskRows

_LOSSES = "/losses"
"""No parameter has this name."""
_CODES = 2**20


def reduced_losses(
    made: Callable[[], torch.Tensor], tasks: int, reducer: Reducer, portion: torch.Tensor
) -> torch.Tensor:
    """[K] float64, the mean losses of all ranks' samples; `made` gives this rank's, [K]."""

    def scaled() -> Sums:
        losses = made().detach()
        return {_LOSSES: losses.double() * portion.to(losses.device)}

    return reducer.sums(scaled, {_LOSSES: ((tasks,), torch.float64)})[_LOSSES]


class RankRows:
    """Adds up the rows of all ranks.

    What tasks own is found from gradients, which differ between ranks. The first rows therefore determine it:
    a parameter counts as owned where all ranks found the same owners. Later rows are converted to that form,
    so that shapes are always equal.
    """

    def __init__(self, named: Mapping[str, nn.Parameter], tasks: int) -> None:
        self._named, self._tasks = named, tasks
        self._owned: dict[str, OwnedRows] | None = None

    def reduced(
        self, make: Callable[[], tuple[TaskRows, torch.Tensor]], reducer: Reducer, portion: torch.Tensor
    ) -> tuple[TaskRows, torch.Tensor]:
        """Rows and losses [K] of all ranks' samples; `make` gives this rank's, `portion` [K] is its share of
        every task's samples. An error in `make` is raised on all ranks.
        """
        once = cache(make)
        owned = self._owned
        if owned is None:
            owned = self._owned = self._agreed(lambda: once()[0], reducer)
        like: Like = {
            _LOSSES: ((self._tasks,), torch.float64),
            **{
                name: (value.shape if name in owned else (self._tasks, *value.shape), value.dtype)
                for name, value in self._named.items()
            },
        }
        sums = dict(reducer.sums(lambda: self._contribution(*once(), portion, owned), like))
        losses = sums.pop(_LOSSES)
        patterns = {
            name: replace(pattern, gradient=sums.pop(name).view_as(pattern.gradient))
            for name, pattern in owned.items()
        }
        return TaskRows(self._tasks, sums, patterns), losses

    def _agreed(self, rows_of: Callable[[], TaskRows], reducer: Reducer) -> dict[str, OwnedRows]:
        patterns: dict[str, OwnedRows] = {}

        def codes() -> Sums:
            for name, own in rows_of().owned.items():
                patterns[name] = own.of_parameter(torch.zeros_like(self._named[name]))
            code = torch.tensor([_code(patterns.get(name)) for name in self._named], dtype=torch.float64)
            return {"code": code, "square": code.square()}

        shape = (len(self._named),)
        sums = reducer.sums(codes, {"code": (shape, torch.float64), "square": (shape, torch.float64)})
        # equal numbers, and no others, have R times the sum of squares equal to the square of the sum
        alike = reducer.size * sums["square"] == sums["code"].square()
        agreed = (alike & (sums["code"] > 0)).tolist()
        return {name: patterns[name] for name, owned in zip(self._named, agreed, strict=True) if owned}

    def _contribution(
        self, rows: TaskRows, losses: torch.Tensor, portion: torch.Tensor, owned: Mapping[str, OwnedRows]
    ) -> Sums:
        """This rank's part of the sums; parameters without a gradient are left out."""
        made = {_LOSSES: losses.detach().double() * portion.to(losses.device)}
        for name in self._named:
            values = rows.shared.get(name)
            if name in owned:
                if values is not None:
                    _require_owned(name, values, owned[name])
                    made[name] = torch.einsum("k,k...->...", portion.to(values), values)
                elif name in rows.owned:
                    made[name] = rows.owned[name].weighted(portion)
                continue
            if values is None and name in rows.owned:
                values = rows.owned[name].dense(self._tasks)
            if values is not None:
                made[name] = values * portion.to(values).view(-1, *[1] * (values.dim() - 1))
        return made


def _code(pattern: OwnedRows | None) -> int:
    """A number that differs between owners, 0 for none."""
    if pattern is None:
        return 0
    owners = pattern.owner.cpu().to(torch.int64).contiguous().numpy().tobytes()
    return 1 + zlib.crc32(owners, int(pattern.by_rows)) % _CODES


def _require_owned(name: str, rows: torch.Tensor, pattern: OwnedRows) -> None:
    flat = rows.reshape(len(rows), *pattern.gradient.shape)
    others = pattern.owner.unsqueeze(0) != torch.arange(len(rows), device=rows.device).unsqueeze(1)
    if bool((flat * others.view(*others.shape, *[1] * (flat.dim() - 2)).to(flat)).any()):
        raise UnsupportedError(
            f"{name}: rows that one task alone used in the first step are used by several now; the ranks of "
            "a data-parallel run agree in the first step on what tasks share. Train in one process"
        )
