"""One backward pass that shows the gradient of every site and keeps none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.autograd.graph import GradientEdge

from .graph import Site


def visit(
    losses: torch.Tensor,
    cotangent: torch.Tensor,
    sites: Sequence[Site],
    show: Callable[[int, torch.Tensor], None],
    *,
    retain_graph: bool = True,
) -> None:
    """Calls `show(number of the site, gradient of its output)` for every site that the losses reach.

    `cotangent` [K] weighs the losses. Sites on the way are seen by hooks, so that each gradient lives only as
    long as in a plain backward pass, and no gradient of a parameter is computed. Without `retain_graph` what
    the graph saved goes on the way, but for that of the sites next to the data.
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
        found = torch.autograd.grad(
            losses,
            [GradientEdge(sites[number].node, 0) for number in ends],
            cotangent,
            retain_graph=retain_graph,
            allow_unused=True,
        )
        # as within the pass: a saved weight would begin a graph
        with torch.no_grad():
            for number, gradient in zip(ends, found, strict=True):
                if gradient is not None:
                    show(number, gradient)
    finally:
        for handle in hooks:
            handle.remove()
