"""One plain backward pass of weighted task losses, for weights that need no rows."""

from __future__ import annotations

import torch

from mtrl.reducer import ALONE, Reducer, Sums

from .jacobian import TaskJacobian


class WeightedPass:
    """Gradients of sum_k weights[k] losses[k]; what a task owns takes the weight 1 unless `weigh_owned`."""

    def __init__(self, jacobian: TaskJacobian, *, weigh_owned: bool) -> None:
        self._jacobian, self._weigh_owned = jacobian, weigh_owned
        self._owned: set[str] | None = None

    def gradients(
        self,
        losses: torch.Tensor,
        weights: torch.Tensor,
        *,
        reducer: Reducer = ALONE,
        portion: torch.Tensor | None = None,
        retain_graph: bool = False,
    ) -> dict[str, torch.Tensor]:
        """Parameter name -> gradient; `losses` and `weights` are [K], `portion` [K] what this rank's samples
        count among those of all. The losses' graph is freed unless `retain_graph`.
        """
        scale = weights.to(losses)
        plain = bool((scale == 1).all())
        apart = set() if self._weigh_owned or plain else self._apart(losses, reducer)
        counted = None
        if portion is not None and reducer.size > 1:
            counted = portion.to(losses)
            scale = scale * counted
        jacobian = self._jacobian

        def make() -> dict[str, torch.Tensor]:
            chosen = [n for n, name in enumerate(jacobian.names) if name not in apart]
            groups = [(scale, chosen)]
            if apart:
                ones = torch.ones_like(scale) if counted is None else counted
                groups.append((ones, [n for n, name in enumerate(jacobian.names) if name in apart]))
            found: dict[str, torch.Tensor] = {}
            for number, (factor, group) in enumerate(groups):
                made = torch.autograd.grad(
                    losses, [jacobian.parameters[n] for n in group], factor,
                    retain_graph=retain_graph or number + 1 < len(groups), allow_unused=True,
                )  # fmt: skip
                named = zip(group, made, strict=True)
                found |= {jacobian.names[n]: value for n, value in named if value is not None}
            return found

        pairs = zip(jacobian.names, jacobian.parameters, strict=True)
        return dict(reducer.sums(make, {name: (value.shape, value.dtype) for name, value in pairs}))

    def _apart(self, losses: torch.Tensor, reducer: Reducer) -> set[str]:
        """What tasks own, on every rank."""
        jacobian = self._jacobian
        if reducer.size == 1:
            if not jacobian.surveyed:
                jacobian.survey(losses)
            return set(jacobian.owned)
        if self._owned is None:

            def make() -> Sums:
                if not jacobian.surveyed:
                    jacobian.survey(losses)
                owned = [float(name in jacobian.owned) for name in jacobian.names]
                return {"owned": torch.tensor(owned)}

            found = reducer.sums(make, {"owned": ((len(jacobian.names),), torch.float32)})["owned"]
            everywhere = (found == reducer.size).tolist()
            self._owned = {name for name, owned in zip(jacobian.names, everywhere, strict=True) if owned}
        return self._owned
