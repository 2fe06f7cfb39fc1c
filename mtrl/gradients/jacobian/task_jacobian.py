"""Per-task gradients of a task-major batch in one backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from mtrl.errors import ConfigError, UnsupportedError

from .collectors import Collector, GramianCollector, RowCollector
from .graph import Site, find_sites, visit
from .planning import Plan, make_plan
from .rank_blocks import RankBlocks
from .rows import TaskRows
from .rules import RULES


class TaskJacobian:
    """Gradients of K task losses with respect to shared parameters, at the price of about one backward pass.

    Every sample belongs to one task, so the gradient of task k in a layer Y = X W is X_k^T D_k: the batch's
    one backward pass already computes D, and only the last product is taken per task. The network needs no
    change and no wrapper: the places where parameters meet data are read from the autograd graph of the
    losses (linear layers, batched ensembles and experts, per-task heads, LayerNorm, embeddings,
    convolutions, elementwise scales; attention, recurrence and LoRA consist of these), however often a
    weight is used. The first call with a network also finds where the tasks lie in each of its tensors.

        jacobian = TaskJacobian(critic)
        rows = jacobian.rows(batch.task_losses(errors))     # losses: [K]
        weights = weighting.weights(rows.gramian())         # [K]
        for name, gradient in rows.combine(weights).items(): ...

    Losses that mix tasks, such as the balance loss of a mixture of experts, stay outside: their gradient is
    added to the combination. Parameters of operations that are not known here are exact too, by one backward
    pass per task; `slow` names them.
    """

    def __init__(self, parameters: nn.Module | Mapping[str, nn.Parameter] | Iterable[nn.Module]) -> None:
        """`parameters`: a module, or names and parameters; those without gradients are left out."""
        if isinstance(parameters, nn.Module):
            named = dict(parameters.named_parameters())
        elif isinstance(parameters, Mapping):
            named = dict(parameters)
        else:
            named = dict(nn.ModuleList(parameters).named_parameters())
        named = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
        if not named:
            raise ConfigError("no parameter requires a gradient; expected at least one")
        self.names = list(named)
        self.parameters = list(named.values())
        self._index = {id(parameter): index for index, parameter in enumerate(self.parameters)}
        self._plans: dict[tuple[object, ...], Plan] = {}
        self._buffers: dict[tuple[str, int], torch.Tensor] = {}
        self.slow: tuple[str, ...] = ()
        """Parameters whose rows took one backward pass per task in the latest call."""
        self.owned: tuple[str, ...] = ()
        """Parameters of which every task has rows of its own, in the latest call."""
        self.surveyed = False
        """Whether a call has found out what tasks own."""

    def rows(self, losses: torch.Tensor, *, retain_graph: bool = False) -> TaskRows:
        """The gradient of every loss; `losses` is [K], each of one task's samples.

        The graph goes on the way unless `retain_graph`, as in `torch.autograd.grad`. The rows stand in
        buffers that the next call overwrites. Raises UnsupportedError where samples of different tasks are
        mixed by a batch normalisation.
        """
        self._check(losses)
        if len(losses) == 1:
            return self._single(losses, retain_graph)
        collector = RowCollector(len(losses), self.names, self.parameters, self._buffers)
        with self._as_stored():
            self._collect(losses, collector, retain_graph)
            rows = collector.finish()
        self.owned, self.surveyed = tuple(rows.owned), True
        return rows

    def gramian(
        self, losses: torch.Tensor, scratch_mb: float = 16.0, blocks: RankBlocks | None = None
    ) -> torch.Tensor:
        """[K, K] float64 inner products of the shared rows, none of which is kept.

        The graph is kept, so that `(weights @ losses).backward()` can follow with a second pass: for
        networks whose K x P rows do not fit. `scratch_mb` bounds the piece of rows held at a time (a weight
        that is used several times needs all its rows at once). `blocks` adds them over ranks.
        """
        self._check(losses)
        collector = GramianCollector(len(losses), self.names, self.parameters, scratch_mb, blocks)
        with self._as_stored():
            self._collect(losses, collector, retain_graph=True)
            total = collector.finish()
        self.owned, self.surveyed = tuple(collector.owned_names), True
        return total

    def survey(self, losses: torch.Tensor) -> None:
        """Finds out what tasks own, once, for weightings that never ask for rows."""
        self.gramian(losses)

    def loop(
        self,
        loss_of: Callable[[int], torch.Tensor],
        like: TaskRows,
        around: Callable[[int], AbstractContextManager[None]] = lambda task: nullcontext(),
    ) -> TaskRows:
        """The same rows from one forward and backward pass per task; `loss_of(k)` is a scalar.

        `like` is what `rows` found for this network: it tells what tasks own, and its shared rows are
        overwritten in the order of tasks. Both passes of task k happen within `around(k)`.
        """
        shared = dict(like.shared)
        owned = {name: torch.zeros_like(self.parameters[self.names.index(name)]) for name in like.owned}
        for task in range(like.tasks):
            with around(task):
                found: Sequence[torch.Tensor | None] = torch.autograd.grad(
                    loss_of(task), self.parameters, allow_unused=True
                )
            for name, gradient in zip(self.names, found, strict=True):
                if name in owned and gradient is not None:
                    owned[name] += gradient
                elif name in shared:
                    if gradient is None:
                        shared[name][task].zero_()
                    else:
                        shared[name][task].copy_(gradient)
        pulled = {name: like.owned[name].of_parameter(gradient) for name, gradient in owned.items()}
        return TaskRows(like.tasks, shared, pulled)

    def _check(self, losses: torch.Tensor) -> None:
        if losses.dim() != 1 or len(losses) == 0:
            raise ConfigError(f"losses have shape {tuple(losses.shape)}; expected one per task, [K]")
        if losses.grad_fn is None:
            raise ConfigError("the losses depend on no parameter; expected a graph that reaches the network")

    def _as_stored(self) -> AbstractContextManager[object]:
        """Products in the precision of what the forward pass stored, also where autocast is on around."""
        device = self.parameters[0].device.type
        return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()

    def _single(self, losses: torch.Tensor, retain_graph: bool) -> TaskRows:
        found = torch.autograd.grad(losses[0], self.parameters, retain_graph=retain_graph, allow_unused=True)
        pairs = zip(self.names, found, strict=True)
        return TaskRows(1, {name: row.unsqueeze(0) for name, row in pairs if row is not None})

    def _collect(self, losses: torch.Tensor, collector: Collector, retain_graph: bool) -> None:
        sites = find_sites(losses, self._index)
        if not sites:
            raise UnsupportedError("no operation of the losses' graph uses the parameters together with data")
        plan = self._plan(losses, sites)
        self.slow = tuple(self.names[index] for index in sorted(plan.slow))
        collector.expect([use for number in plan.visited for use in sites[number].uses], plan.slow)
        for index in sorted(plan.slow):
            collector.add_rows(index, self._loop(losses, index))
        if not plan.visited:
            return

        def collect(number: int, gradient: torch.Tensor) -> None:
            layout = plan.visited.get(number)
            if layout is not None:
                site = sites[number]
                collector.visit(site, layout, gradient, RULES[site.name])

        # All sites: the backward pass goes only as far as the last of those it is asked for.
        visit(losses, torch.ones_like(losses), sites, collect, retain_graph=retain_graph)

    def _plan(self, losses: torch.Tensor, sites: Sequence[Site]) -> Plan:
        key = (len(losses), *(site.signature for site in sites))
        plan = self._plans.get(key)
        if plan is None:
            plan = make_plan(losses, sites, self.names)
            if plan.certain:
                self._plans[key] = plan
        return plan

    def _loop(self, losses: torch.Tensor, index: int) -> torch.Tensor:
        parameter = self.parameters[index]
        rows = parameter.new_zeros(len(losses), *parameter.shape)
        for task in range(len(losses)):
            (row,) = torch.autograd.grad(losses[task], [parameter], retain_graph=True, allow_unused=True)
            if row is not None:
                rows[task] = row
        return rows
