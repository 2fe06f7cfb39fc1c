"""Finds, once per network, where the tasks lie at every site, from gradients of single losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from mtrl.errors import UnsupportedError

from .graph import MIXING, Site, mixes, visit
from .layouts import TaskLayout, candidates, fits, touched_along
from .rules import RULES


@dataclass(frozen=True)
class Plan:
    """What to do at every site of a graph."""

    slow: frozenset[int]
    """Indices of parameters whose rows come from one backward pass per task."""
    certain: bool
    """Whether every layout follows from a gradient; one that was zero for all tasks proves nothing."""
    visited: Mapping[int, TaskLayout]
    """Number of a site -> its layout, for those that give rows in the backward pass."""


def make_plan(losses: torch.Tensor, sites: Sequence[Site], names: Sequence[str]) -> Plan:
    """Backpropagates losses one at a time: a layout is excluded by a gradient of loss k outside its block k.

    Raises UnsupportedError, naming the parameters, where an operation mixes the samples of a batch.
    """
    for site in sites:
        if mixes(site.node, site.name):
            users = ", ".join(names[index] for use in site.uses for index in use.parameters)
            raise UnsupportedError(
                f"{users or 'a layer'}: {MIXING[site.name]} mixes the samples of all tasks, so that no "
                "task has a gradient of its own; use LayerNorm or GroupNorm instead"
            )
    dims = [RULES[site.name].dims(site) if site.name in RULES else () for site in sites]
    layouts, certain = _of_all_tasks(losses, sites, dims)
    if any(layout is None and along for layout, along in zip(layouts, dims, strict=True)):
        certain &= _add_layouts_of_some(losses, sites, dims, layouts)
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
    # The two ends first: together they determine nearly every network.
    for task in (0, tasks - 1, *range(1, tasks - 1)):

        def narrow(number: int, gradient: torch.Tensor, task: int = task) -> None:
            if left[number] and bool(gradient.ne(0).any()):
                seen.add(number)
                left[number] = [
                    layout
                    for layout in left[number]
                    if fits(layout, touched_along(gradient, layout.dim), task)
                ]

        visit(losses, _unit(losses, task), sites, narrow)
        if task != 0 and all(not found or (len(found) == 1 and n in seen) for n, found in enumerate(left)):
            break
    certain = all(number in seen for number, found in enumerate(left) if found)
    return [found[0] if found else None for found in left], certain


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

        visit(losses, _unit(losses, task), sites, look)
    for number, by_task in touched.items():
        members = tuple(sorted(by_task))
        if not 0 < len(members) < tasks:
            continue
        # a single task fits any layout: the leading dimension makes it the owner, as it does several
        order = tuple(sorted(dims[number])) if len(members) == 1 else dims[number]
        for layout in candidates(sites[number].shape, len(members), order):
            if all(fits(layout, by_task[task][layout.dim], n) for n, task in enumerate(members)):
                layouts[number] = replace(layout, members=members)
                break
    return len(passing) == tasks


def _unit(losses: torch.Tensor, task: int) -> torch.Tensor:
    unit = torch.zeros_like(losses)
    unit[task] = 1.0
    return unit
