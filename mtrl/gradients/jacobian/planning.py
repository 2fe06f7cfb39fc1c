"""Finds, once per network, where the tasks lie at every site, from gradients of some of the losses.

A gradient that is zero only because a factor is 0 at the moment, a gate or a mask, proves nothing about the
next step. The gradient sent back is therefore not a number: NaN times 0 is NaN, so that whatever a task could
reach is touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from mtrl.errors import UnsupportedError

from .graph import MIXING, RESHAPING, Graph, Node, Site, mixes, visit
from .layouts import TaskLayout, candidates, fits, touched_along
from .rules import RULES

_MOVING = RESHAPING | {
    "FlipBackward0", "GatherBackward0", "IndexAddBackward0", "IndexBackward0", "IndexCopyBackward0",
    "IndexPutBackward0", "IndexSelectBackward0", "RollBackward0", "ScatterBackward0",
}  # fmt: skip
"""Operations that only move elements of data. Any other may drop some by their value, as ReLU does."""


@dataclass(frozen=True)
class Plan:
    """What to do at every site of a graph."""

    slow: frozenset[int]
    """Indices of parameters whose rows come from one backward pass per task."""
    certain: bool
    """Whether every layout follows from a gradient; one that was zero for all tasks proves nothing."""
    visited: Mapping[int, TaskLayout]
    """Number of a site -> its layout, for those that give rows in the backward pass."""


def make_plan(losses: torch.Tensor, graph: Graph, names: Sequence[str]) -> Plan:
    """Backpropagates some of the losses at a time: a layout is excluded by a gradient outside their blocks. A
    site without a layout has slow parameters.

    Raises UnsupportedError, naming the parameters, where batch normalisation mixes the samples of tasks.
    """
    sites = graph.sites
    dims = [RULES[site.name].dims(site) if site.name in RULES else () for site in sites]
    with torch.autograd.set_detect_anomaly(False), _nothing_dropped(graph.nodes):
        layouts, certain = _of_all_tasks(losses, sites, dims)
        if any(layout is None and along for layout, along in zip(layouts, dims, strict=True)):
            certain &= _add_layouts_of_some(losses, sites, dims, layouts)
    for site, layout in zip(sites, layouts, strict=True):
        if mixes(site.node, site.name) and (layout is None or layout.dim != 1):
            users = ", ".join(names[index] for use in site.uses for index in use.parameters)
            raise UnsupportedError(
                f"{users or 'a layer'}: {MIXING[site.name]} mixes the samples of all tasks, so that no "
                "task has a gradient of its own; use LayerNorm or GroupNorm instead"
            )
    slow = {
        index
        for site, layout in zip(sites, layouts, strict=True)
        if layout is None
        for use in site.uses
        for index in use.parameters
    }
    # a function of several parameters gives rows to all of them, or to none
    joined = [set(use.parameters) for site in sites for use in site.uses if len(use.parameters) > 1]
    while found := {index for group in joined if slow & group for index in group} - slow:
        slow |= found
    visited = {
        number: layout
        for number, (site, layout) in enumerate(zip(sites, layouts, strict=True))
        if layout is not None and any(not slow.intersection(use.parameters) for use in site.uses)
    }
    return Plan(frozenset(slow), certain, visited)


def _of_all_tasks(
    losses: torch.Tensor, sites: Sequence[Site], dims: Sequence[tuple[int, ...]]
) -> tuple[list[TaskLayout | None], bool]:
    """The first layout of every site that no gradient excludes, and whether each was confirmed by one."""
    tasks = len(losses)
    left = [list(candidates(site.shape, tasks, along)) for site, along in zip(sites, dims, strict=True)]
    seen: set[int] = set()
    for some in _distinguishing(tasks):

        def narrow(number: int, gradient: torch.Tensor, some: tuple[int, ...] = some) -> None:
            if left[number] and bool(gradient.ne(0).any()):
                seen.add(number)
                left[number] = [
                    layout
                    for layout in left[number]
                    if fits(layout, touched_along(gradient, layout.dim), some)
                ]

        visit(losses, _taint(losses, some), sites, narrow)
    certain = all(number in seen for number, found in enumerate(left) if found)
    return [found[0] if found else None for found in left], certain


def _distinguishing(tasks: int) -> Iterator[tuple[int, ...]]:
    """2 log2 K sets of tasks; of any two tasks, each is in a set without the other."""
    for bit in range(max(1, (tasks - 1).bit_length())):
        for value in (0, 1):
            some = tuple(task for task in range(tasks) if task >> bit & 1 == value)
            if some:
                yield some


def _add_layouts_of_some(
    losses: torch.Tensor,
    sites: Sequence[Site],
    dims: Sequence[tuple[int, ...]],
    layouts: list[TaskLayout | None],
) -> bool:
    """Fills in layouts of the sites that only some tasks pass. Returns whether every task was seen to pass
    any site at all, without which the members of a layout may be too few.
    """
    tasks = len(losses)
    touched: dict[int, dict[int, dict[int, torch.Tensor]]] = {
        number: {} for number, layout in enumerate(layouts) if layout is None and dims[number]
    }
    passing: set[int] = set()
    for task in range(tasks):

        def look(number: int, gradient: torch.Tensor, task: int = task) -> None:
            if bool(gradient.ne(0).any()):
                passing.add(task)
                if number in touched:
                    touched[number][task] = {dim: touched_along(gradient, dim) for dim in dims[number]}

        visit(losses, _taint(losses, (task,)), sites, look)
    for number, by_task in touched.items():
        members = tuple(sorted(by_task))
        if not 0 < len(members) < tasks:
            continue
        # a single task fits any layout: the leading dimension makes it the owner, as it does several
        order = tuple(sorted(dims[number])) if len(members) == 1 else dims[number]
        for layout in candidates(sites[number].shape, len(members), order):
            if all(fits(layout, by_task[task][layout.dim], (n,)) for n, task in enumerate(members)):
                layouts[number] = replace(layout, members=members)
                break
    return len(passing) == tasks


def _taint(losses: torch.Tensor, some: Sequence[int]) -> torch.Tensor:
    taint = torch.zeros_like(losses)
    taint[list(some)] = torch.nan
    return taint


@contextmanager
def _nothing_dropped(nodes: Sequence[Node]) -> Iterator[None]:
    """Within the context gradients that are not a number pass every operation that keeps the shape, element
    by element, whatever it would drop.
    """

    def kept(
        made: Sequence[torch.Tensor | None], given: Sequence[torch.Tensor | None]
    ) -> tuple[torch.Tensor | None, ...] | None:
        if len(given) != 1 or given[0] is None or not bool(given[0].isnan().any()):
            return None
        taint = given[0]
        return tuple(
            torch.where(taint.isnan(), taint.to(found), found)
            if found is not None and found.shape == taint.shape
            else found
            for found in made
        )

    hooks = [node.register_hook(kept) for node in nodes if node.name() not in _MOVING]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()
