"""The operations of an autograd graph in which parameters meet data, and a backward pass over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.autograd.graph import GradientEdge

Node = Any
"""A node of torch's autograd graph (torch.autograd.graph.Node carries no types for what it saved)."""

RESHAPING = frozenset(
    {
        "AliasBackward0", "CatBackward0", "CloneBackward0", "PermuteBackward0", "ReshapeAliasBackward0",
        "SelectBackward0", "SliceBackward0", "SplitBackward0", "SplitWithSizesBackward0", "SqueezeBackward0",
        "SqueezeBackward1", "StackBackward0", "TBackward0", "ToCopyBackward0", "TransposeBackward0",
        "UnbindBackward0", "UnsafeSplitBackward0", "UnsafeViewBackward0", "UnsqueezeBackward0",
        "ViewBackward0",
    }
)  # fmt: skip
"""Operations that only move or cast elements."""

ARITHMETIC = frozenset(
    {
        "AddBackward0", "AddmmBackward0", "BaddbmmBackward0", "BmmBackward0", "DivBackward0", "ExpBackward0",
        "LogSoftmaxBackward0", "MmBackward0", "MulBackward0", "NegBackward0", "PowBackward0",
        "RepeatBackward0", "SigmoidBackward0", "SoftmaxBackward0", "SoftplusBackward0", "SqrtBackward0",
        "SubBackward0", "SumBackward0", "SumBackward1", "TanhBackward0", "WeightNormInterfaceBackward0",
    }
)  # fmt: skip
"""Operations whose result is again a function of parameters alone, where all their inputs are."""

_PRODUCTS = frozenset({"AddmmBackward0", "BaddbmmBackward0", "BmmBackward0", "MmBackward0"})

MIXING = {
    "NativeBatchNormBackward0": "batch normalisation",
    "CudnnBatchNormBackward0": "batch normalisation",
    "MiopenBatchNormBackward0": "batch normalisation",
}
"""Operations that mix the samples of a batch, within a channel: a task's gradient may depend on other tasks'
samples."""


@dataclass(frozen=True, slots=True)
class Source:
    """One parameter, or a function of parameters alone."""

    parameters: tuple[int, ...]
    """Indices of the parameters behind it."""
    path: tuple[str, ...]
    """Names of the operations from the one parameter to here; empty for the parameter itself."""
    reshaped: bool
    """Whether the path only moves and casts elements."""


@dataclass(frozen=True, slots=True)
class Use(Source):
    """The same as an input of an operation on data."""

    slot: int
    """Which input of the operation it is."""
    node: Node
    """The last node of the function of parameters."""
    output: int
    """Which output of that node."""

    @property
    def shape(self) -> torch.Size:
        """Shape of the input."""
        shape: torch.Size = self.node._input_metadata[self.output].shape
        return shape


@dataclass(slots=True)
class Site:
    """An operation on data that uses parameters."""

    node: Node
    name: str
    uses: list[Use] = field(default_factory=list)
    terminal: bool = True
    """Whether no other site lies between this one and the data."""

    @property
    def shape(self) -> torch.Size:
        """Shape of the operation's result and of its gradient."""
        shape: torch.Size = self.node._input_metadata[0].shape
        return shape

    @property
    def signature(self) -> tuple[object, ...]:
        """Equal for the same site of the next step's graph."""
        uses = tuple((use.slot, use.parameters, use.path) for use in self.uses)
        return (self.name, tuple(self.shape), uses)


@dataclass(frozen=True, slots=True)
class Graph:
    """What is known of the graph of one call's losses."""

    sites: list[Site]
    """From the data towards the losses."""
    nodes: list[Node]
    """Operations on data, in the same order."""
    names: list[str]
    """Names of all operations, which tell one network, or one path through it, from another."""


def read_graph(losses: torch.Tensor, parameters: Mapping[int, int]) -> Graph:
    """`parameters` maps id(parameter) to its index. A leaf that is not among them counts as data."""
    pure: dict[Node, Source] = {}
    reaches: dict[Node, bool] = {}
    sites: list[Site] = []
    nodes: list[Node] = []
    names: list[str] = []
    root = losses.grad_fn
    stack: list[tuple[Node, tuple[tuple[Node, int], ...] | None]] = [(root, None)]
    while stack:
        node, inputs = stack.pop()
        if inputs is None:
            if node in reaches:
                continue
            reaches[node] = False
            inputs = node.next_functions
            stack.append((node, inputs))
            for child, _ in inputs:
                if child is not None and child not in reaches:
                    stack.append((child, None))
            continue
        name = node.name()
        names.append(name)
        if not inputs:
            index = parameters.get(id(getattr(node, "variable", None)))
            if index is not None:
                pure[node] = Source((index,), (), True)
            continue
        enters = below = data = False
        for child, _ in inputs:
            if child in pure:
                enters = True
            elif child is not None:
                data = True
                below = below or reaches[child]
        if enters and not data:
            made = _pure(node, name, inputs, pure)
            if made is not None:
                pure[node] = made
                continue
        nodes.append(node)
        if enters or mixes(node, name):
            uses = [
                Use(found.parameters, found.path, found.reshaped, slot, child, output)
                for slot, (child, output) in enumerate(inputs)
                if (found := pure.get(child)) is not None
            ]
            sites.append(Site(node, name, uses, terminal=not below))
        reaches[node] = below or enters
    if root in pure:
        # nothing tells data from constants of the same shape: a site that no rule serves
        whole = pure[root]
        sites.append(Site(root, "", [Use(whole.parameters, whole.path, False, 0, root, 0)]))
    return Graph(sites, nodes, names)


def mixes(node: Node, name: str) -> bool:
    """Whether an operation's result depends on all samples of a channel."""
    return name in MIXING and bool(getattr(node, "_saved_training", True))


def _pure(
    node: Node, name: str, inputs: Sequence[tuple[Node, int]], pure: Mapping[Node, Source]
) -> Source | None:
    """The node as a function of parameters, all its inputs `pure` or without a gradient; None where one may
    be data.
    """
    reshaping = name in RESHAPING or (name == "ExpandBackward0" and _same_shape(node, inputs))
    if not reshaping and name not in ARITHMETIC:
        return None
    given = [item for item in inputs if item[0] is not None]
    # An input without a gradient may be data. A constant, such as a mask, keeps the shape; so does a product
    # with as many samples as inputs.
    unclear = len(given) < len(inputs) and not reshaping
    if unclear and (len(given) > 1 or name in _PRODUCTS or not _same_shape(node, given)):
        return None
    sources = [pure[child] for child, _ in given]
    if len(sources) == 1:
        (only,) = sources
        return Source(only.parameters, (*only.path, name), reshaping and only.reshaped)
    behind = tuple(sorted({index for item in sources for index in item.parameters}))
    return Source(behind, ("several", name), reshaping and all(item.reshaped for item in sources))


def _same_shape(node: Node, inputs: Sequence[tuple[Node, int]]) -> bool:
    child, output = inputs[0]
    same: bool = node._input_metadata[0].shape == child._input_metadata[output].shape
    return same


def visit(
    losses: torch.Tensor,
    cotangent: torch.Tensor,
    sites: Sequence[Site],
    show: Callable[[int, torch.Tensor], None],
    *,
    retain_graph: bool = True,
) -> None:
    """Calls `show(number of the site, gradient of its output)` for every site that the losses reach.

    `cotangent` [K] weighs the losses. Inner sites are visited by hooks, so that each gradient is kept only as
    long as in a plain backward pass, and no gradient of a parameter is computed. Without `retain_graph` the
    graph is freed, but for the saved tensors of the sites next to the data.
    """
    ends = [number for number, site in enumerate(sites) if site.terminal]
    hooks = []
    for number, site in enumerate(sites):
        if not site.terminal:

            def hook(gradients: Sequence[torch.Tensor | None], number: int = number) -> None:
                if gradients[0] is not None:
                    show(number, gradients[0])

            hooks.append(site.node.register_prehook(hook))
    try:
        gradients = torch.autograd.grad(
            losses,
            [GradientEdge(sites[number].node, 0) for number in ends],
            cotangent,
            retain_graph=retain_graph,
            allow_unused=True,
        )
        # as within the pass: a saved weight requires a gradient
        with torch.no_grad():
            for number, gradient in zip(ends, gradients, strict=True):
                if gradient is not None:
                    show(number, gradient)
    finally:
        for handle in hooks:
            handle.remove()
