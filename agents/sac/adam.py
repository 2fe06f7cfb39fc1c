"""Adam for a handful of long vectors, without the bookkeeping that a step of `torch.optim` repeats."""

from __future__ import annotations

from typing import Any

import torch


class VectorAdam(torch.optim.Adam):
    """Fused `torch.optim.Adam` (Kingma and Ba 2015, algorithm 1), moved by `advance` instead of `step`.

    Arithmetic and state_dict are PyTorch's. Its `step` also looks after hooks, closures, profilers and
    parameters that come and go, of which an agent's few vectors have none; for small networks that costs
    more than the arithmetic.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, eps: float) -> None:
        """Groups as of `torch.optim.Adam`, with a learning rate of their own where they name "lr"."""
        super().__init__(groups, lr=lr, eps=eps, fused=True)

    @torch.no_grad()
    def advance(self) -> None:
        """One step on the gradients of all parameters; those without one stay."""
        moving = [[p for p in group["params"] if p.grad is not None] for group in self.param_groups]
        if not all(self.state.get(p) for parameters in moving for p in parameters):
            # the first step makes the state
            self.step()
            return
        for group, parameters in zip(self.param_groups, moving, strict=True):
            if not parameters:
                continue
            states = [self.state[p] for p in parameters]
            for state in states:
                state["step"] += 1
            beta1, beta2 = group["betas"]
            # the operation that `step` itself ends in
            torch._fused_adam_(
                parameters,
                [p.grad for p in parameters],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=0.0,
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )
