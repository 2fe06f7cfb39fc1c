"""Per-task gradients of a task-major batch in one backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from mtrl.errors import ConfigError, UnsupportedError

from .collectors import Collector, GramianCollector, RowCollector
from .graph import Graph, read_graph, visit
from .planning import Plan, make_plan
from .rank_blocks import RankBlocks
from .rows import TaskRows


class TaskJacobian:
    """Gradients of K task losses by shared parameters, at the price of about one backward pass.

    Every sample belongs to one task, so the gradient of task k in a layer Y = X W is X_k^T D_k: the joint
    backward pass already computes D, and only the last product is taken per task. The network needs no
    change and no wrapper: the operations in which parameters meet data are read from the autograd graph of
    the losses (linear layers, batched ensembles and experts, per-task heads, LayerNorm, embeddings,
    convolutions, elementwise scales; attention, recurrence and LoRA consist of these), however often a
    weight is used. The first call with a network also finds where the tasks lie in each of its tensors.

        jacobian = TaskJacobian(critic)
        rows = jacobian.rows(batch.task_losses(errors))     # losses: [K]
        weights = weighting.weights(rows.gramian())         # [K]
        for name, gradient in rows.combine(weights).items(): ...

    Losses that mix tasks, such as the balance loss of a mixture of experts, stay outside: their gradient is
    added to the combination. Parameters of operations without a rule are exact too, by one backward pass per
    task, and so are those from which a task could reach another's loss, by a gate that is closed now; `slow`
    names them. Indices that carry samples from task to task do so from the first call on.
    """

    def __init__(self, parameters: nn.Module | Mapping[str, nn.Parameter] | Iterable[nn.Module]) -> None:
        """`parameters`: a module, or names and parameters; those without gradients are left out."""
        if not isinstance(parameters, Mapping):
            module = parameters if isinstance(parameters, nn.Module) else nn.ModuleList(parameters)
            parameters = dict(module.named_parameters())
        named = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
        if not named:
            raise ConfigError("no parameter requires a gradient; expected at least one")
        self.named = named
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
        """Whether `owned` has been determined by a call."""

    def rows(self, losses: torch.Tensor, *, retain_graph: bool = False) -> TaskRows:
        """The gradient of every loss; `losses` is [K], each of one task's samples.

        The graph is freed unless `retain_graph`, as in `torch.autograd.grad`. The rows lie in buffers that
        the next call overwrites. Raises UnsupportedError where a batch normalisation mixes the samples of
        different tasks.
        """
        self._check(losses)
        if len(losses) == 1:
            gradients = self._gradients(losses[0], retain_graph)
            pairs = zip(self.names, gradients, strict=True)
            return TaskRows(1, {name: row.unsqueeze(0) for name, row in pairs if row is not None})
        collector = RowCollector(len(losses), self.named, self._buffers)
        with self._without_autocast():
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
        collector = GramianCollector(len(losses), self.named, scratch_mb, blocks)
        with self._without_autocast():
            self._collect(losses, collector, retain_graph=True)
            total = collector.finish()
        self.owned, self.surveyed = collector.owned_names, True
        return total

    def loop(
        self,
        loss_of: Callable[[int], torch.Tensor],
        like: TaskRows,
        around: Callable[[int], AbstractContextManager[None]] = lambda task: nullcontext(),
    ) -> TaskRows:
        """The same rows from one forward and backward pass per task; `loss_of(k)` is a scalar.

        `like` is what `rows` found for this network, which says what tasks own; its shared rows are
        overwritten in the order of tasks. Both passes of task k happen within `around(k)`.
        """
        owned = {name: torch.zeros_like(self.named[name]) for name in like.owned}
        for task in range(like.tasks):
            with around(task):
                gradients = self._gradients(loss_of(task))
            for name, gradient in zip(self.names, gradients, strict=True):
                if name in owned and gradient is not None:
                    owned[name] += gradient
                elif name in like.shared:
                    like.shared[name][task] = 0.0 if gradient is None else gradient
        pulled = {name: like.owned[name].of_parameter(gradient) for name, gradient in owned.items()}
        return TaskRows(like.tasks, dict(like.shared), pulled)

    def _gradients(self, loss: torch.Tensor, retain_graph: bool = False) -> Sequence[torch.Tensor | None]:
        return torch.autograd.grad(loss, self.parameters, retain_graph=retain_graph, allow_unused=True)

    def _check(self, losses: torch.Tensor) -> None:
        if losses.dim() != 1 or len(losses) == 0:
            raise ConfigError(f"losses have shape {tuple(losses.shape)}; expected one per task, [K]")
        if losses.grad_fn is None:
            raise ConfigError("the losses depend on no parameter; expected a graph that reaches the network")

    def _without_autocast(self) -> AbstractContextManager[object]:
        """Keeps products in the precision of what the forward pass stored."""
        device = self.parameters[0].device.type
        return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()

    def _collect(self, losses: torch.Tensor, collector: Collector, retain_graph: bool) -> None:
        graph = read_graph(losses, self._index)
        sites = graph.sites
        if not sites:
            raise UnsupportedError("no operation of the losses' graph uses the parameters")
        plan = self._plan(losses, graph)
        self.slow = tuple(self.names[index] for index in sorted(plan.slow))
        collector.expect([use for number in plan.visited for use in sites[number].uses], plan.slow)
        for index in sorted(plan.slow):
            collector.add_rows(index, self._loop(losses, index))
        if not plan.visited:
            return

        def collect(number: int, gradient: torch.Tensor) -> None:
            layout = plan.visited.get(number)
            if layout is not None:
                collector.visit(sites[number], layout, gradient)

        # All sites: the backward pass ends at the last of those it is given.
        visit(losses, torch.ones_like(losses), sites, collect, retain_graph=retain_graph)

    def _plan(self, losses: torch.Tensor, graph: Graph) -> Plan:
        key = (len(losses), *graph.names, *(site.signature for site in graph.sites))
        plan = self._plans.get(key)
        if plan is None:
            plan = make_plan(losses, graph, self.names)
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
