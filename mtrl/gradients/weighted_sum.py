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
        """Parameter name -> gradient; `losses` and `weights` are [K], `portion` [K] is this rank's share of
        every task's samples. The losses' graph is freed unless `retain_graph`.
        """
        named, scale = self._jacobian.named, weights.to(losses)
        plain = self._weigh_owned or bool((scale == 1).all())
        apart = set() if plain else self._owned_names(losses, reducer)
        ones = torch.ones_like(scale)
        if portion is not None and reducer.size > 1:
            ones = portion.to(losses)
            scale = scale * ones
        groups = [(scale, [name for name in named if name not in apart])]
        if apart:
            groups.append((ones, [name for name in named if name in apart]))

        def make() -> dict[str, torch.Tensor]:
            gradients: dict[str, torch.Tensor] = {}
            for number, (factor, names) in enumerate(groups, start=1):
                made = torch.autograd.grad(
                    losses, [named[name] for name in names], factor,
                    retain_graph=retain_graph or number < len(groups), allow_unused=True,
                )  # fmt: skip
                pairs = zip(names, made, strict=True)
                gradients |= {name: value for name, value in pairs if value is not None}
            return gradients

        return dict(reducer.sums(make, {name: (value.shape, value.dtype) for name, value in named.items()}))

    def _owned_names(self, losses: torch.Tensor, reducer: Reducer) -> set[str]:
        """What tasks own, on every rank."""
        jacobian = self._jacobian

        def owned() -> Sums:
            if not jacobian.surveyed:
                jacobian.gramian(losses)
            return {"owned": torch.tensor([float(name in jacobian.owned) for name in jacobian.names])}

        if reducer.size == 1:
            owned()
            return set(jacobian.owned)
        if self._owned is None:
            count = reducer.sums(owned, {"owned": ((len(jacobian.names),), torch.float32)})["owned"]
            everywhere = (count == reducer.size).tolist()
            self._owned = {name for name, owned in zip(jacobian.names, everywhere, strict=True) if owned}
        return self._owned
