"""Adam for a handful of long vectors, without the bookkeeping that a step of `torch.optim` repeats."""

from __future__ import annotations

import torch


class VectorAdam(torch.optim.Adam):
    """`torch.optim.Adam` with `fused=True` (Kingma and Ba 2015, algorithm 1), moved by `advance` instead of
    `step`.

    Arithmetic and state_dict are PyTorch's. Its `step` also looks after hooks, closures, profilers and
    parameters that come and go, of which an agent's few vectors have none; for small networks that costs
    more than the arithmetic.
    """

    @torch.no_grad()
    def advance(self) -> None:
        """One step of every group on the gradients of its parameters; a group that lacks one stays."""
        groups = [g for g in self.param_groups if all(p.grad is not None for p in g["params"])]
        if not all(self.state.get(p) for g in groups for p in g["params"]):
            # the first step makes the state
            self.step()
            return
        for group in groups:
            states = [self.state[p] for p in group["params"]]
            for state in states:
                state["step"] += 1
            beta1, beta2 = group["betas"]
            # the operation that `step` itself ends in
            torch._fused_adam_(
                group["params"],
                [p.grad for p in group["params"]],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=group["amsgrad"],
                maximize=group["maximize"],
            )
