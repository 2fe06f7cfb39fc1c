"""Learns once per network where the tasks lie at every site, from gradients of single losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from mtrl.errors import UnsupportedError

from .graph import MIXING, Site, mixes, visit
from .layouts import TaskLayout, candidates, fits, holds, touched_along
from .rules import RULES


@dataclass(frozen=True)
class Plan:
    """What to do at every site of a graph."""

    slow: frozenset[int]
    """Indices of parameters whose rows come from one backward pass per task."""
    certain: bool
    """Whether every layout was seen at work; a gradient that was zero for all tasks proves nothing."""
    visited: Mapping[int, TaskLayout]
    """Number of a site -> its layout, for those that give rows on the way back."""


def make_plan(losses: torch.Tensor, sites: Sequence[Site], names: Sequence[str]) -> Plan:
    """Tries losses one at a time: what loss k touches outside the block of task k rules a layout out.

    Raises UnsupportedError, naming the parameters, where an operation mixes the samples of a batch.
    """
    tasks = len(losses)
    for site in sites:
        if mixes(site.node, site.name):
            users = ", ".join(names[index] for use in site.uses for index in use.parameters)
            raise UnsupportedError(
                f"{users or 'a layer'}: {MIXING[site.name]} mixes the samples of all tasks, so that no "
                "task has a gradient of its own; use LayerNorm or GroupNorm instead"
            )
    open_: dict[int, list[TaskLayout]] = {}
    for number, site in enumerate(sites):
        rule = RULES.get(site.name)
        dims = rule.dims(site) if rule is not None else ()
        open_[number] = list(candidates(site.shape, tasks, dims))
    seen: set[int] = set()

    def narrow(number: int, gradient: torch.Tensor, task: int) -> None:
        left = open_[number]
        if left and bool(gradient.ne(0).any()):
            seen.add(number)
            open_[number] = [layout for layout in left if holds(layout, gradient, task)]

    unit = torch.eye(tasks, dtype=losses.dtype, device=losses.device)
    # The two ends first: together they settle nearly every network.
    for task in (0, tasks - 1, *range(1, tasks - 1)):
        visit(losses, unit[task], sites, partial(narrow, task=task))
        undecided = [n for n, left in open_.items() if len(left) > 1 or (left and n not in seen)]
        if task != 0 and not undecided:
            break
    found_for_all = [left[0] if left else None for left in open_.values()]
    layouts, all_seen = _of_some(losses, sites, found_for_all)
    slow = {
        index
        for site, layout in zip(sites, layouts, strict=True)
        if layout is None
        for use in site.uses
        for index in use.parameters
    }
    # what is a function of several parameters gives rows to all of them, or to none
    joined = [set(use.parameters) for site in sites for use in site.uses if len(use.parameters) > 1]
    while found := {index for group in joined if slow & group for index in group} - slow:
        slow |= found
    certain = all_seen and all(
        number in seen for number, layout in enumerate(found_for_all) if layout is not None
    )
    visited = {
        number: layout
        for number, (site, layout) in enumerate(zip(sites, layouts, strict=True))
        if layout is not None and any(not slow.intersection(use.parameters) for use in site.uses)
    }
    return Plan(frozenset(slow), certain, visited)


def _of_some(
    losses: torch.Tensor, sites: Sequence[Site], layouts: Sequence[TaskLayout | None]
) -> tuple[tuple[TaskLayout | None, ...], bool]:
    """Layouts of the sites that only some tasks pass, beside those already known; and whether every task was
    seen to pass any site at all, without which the list of those that pass one may be too short.
    """
    tasks = len(losses)
    dims = {
        number: RULES[site.name].dims(site)
        for number, (site, layout) in enumerate(zip(sites, layouts, strict=True))
        if layout is None and site.name in RULES
    }
    if not dims:
        return tuple(layouts), True
    touched: dict[int, dict[int, dict[int, torch.Tensor]]] = {number: {} for number in dims}
    passing: set[int] = set()

    def look(number: int, gradient: torch.Tensor, task: int) -> None:
        if not bool(gradient.ne(0).any()):
            return
        passing.add(task)
        if number in touched:
            touched[number][task] = {dim: touched_along(gradient, dim) for dim in dims[number]}

    unit = torch.eye(tasks, dtype=losses.dtype, device=losses.device)
    for task in range(tasks):
        visit(losses, unit[task], sites, partial(look, task=task))
    found = list(layouts)
    for number, by_task in touched.items():
        members = tuple(sorted(by_task))
        if not 0 < len(members) < tasks:
            continue
        # a single task fits any layout: the leading dimension makes it the owner, as it does several
        order = tuple(sorted(dims[number])) if len(members) == 1 else dims[number]
        for layout in candidates(sites[number].shape, len(members), order):
            if all(fits(layout, by_task[task][layout.dim], n) for n, task in enumerate(members)):
                found[number] = replace(layout, members=members)
                break
    return tuple(found), len(passing) == tasks
