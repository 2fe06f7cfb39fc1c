"""Parameters that move together: one optimiser, and one way to combine the gradients of the tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtrl.gradients import GradientSurgery, SurgeryConfig, require_finite
from mtrl.reducer import Like, Reducer, Sums

from .adam import VectorAdam
from .config import SACConfig
from .fast import Fast


@dataclass(frozen=True)
class Ranks:
    """Who else has samples of this update's tasks."""

    reducer: Reducer
    portion: torch.Tensor | None
    """[K], the share of each task's samples that is this rank's; None alone."""
    update: int
    """Number of the update."""
    tasks: Sequence[str]
    """Names of the K tasks."""

    def counted(self, values: torch.Tensor) -> torch.Tensor:
        """[K] as this rank's part of a mean over all ranks' samples."""
        return values if self.portion is None else values * self.portion.to(values)

    def require_finite(self, losses: torch.Tensor, name: str) -> None:
        """Of several ranks, names the one whose losses [K] are not finite: sums no longer tell."""
        if self.reducer.size > 1:
            require_finite(losses, f"the {name}'s loss", self.update, self.tasks)


class Part:
    """The critics, or the actor: named parameters under Adam, differentiated by task losses [K].

    Without surgery a step costs one plain backward pass of the summed losses, and one sum over ranks.
    """

    def __init__(
        self, name: str, fast: Fast, config: SACConfig, tasks: int, seed: int, *beside: dict[str, Any]
    ) -> None:
        """`name` is "critic" or "actor", a network of `fast`; `beside` are further groups of the same
        optimiser. Raises UnsupportedError for a weighting that does not serve.
        """
        self.name = name
        self._weights = fast.weights[name]
        self._used = fast.used[name].named
        self._clip = config.gradient_clip
        self.optimizer = VectorAdam(
            [{"params": [self._weights.whole]}, *beside],
            lr=config.learning_rate,
            eps=config.adam_epsilon,
        )
        self.surgery: GradientSurgery | None = None
        settings: SurgeryConfig = config.gradients
        if settings.covers(name) and not settings.plain:
            signed = "the actor's loss" if name == "actor" else ""
            self.surgery = GradientSurgery(self._used, settings, tasks, seed, signed=signed)
        self.tasks = tasks
        torso = config.network.torso
        self._balanced = torso.kind == "experts" and torso.experts.switch > 0
        self._share = 1.0
        self._told: dict[str, float] = {}
        self._again: Callable[[], torch.Tensor] | None = None

    def differentiate(
        self,
        losses: Callable[[], torch.Tensor],
        loss_of: Callable[[int], torch.Tensor],
        beside: Callable[[], torch.Tensor | None],
        facts: Callable[[], Mapping[str, torch.Tensor]],
        names: Sequence[str],
        ranks: Ranks,
    ) -> Sums:
        """Leaves the gradient of all ranks' samples for `gather`; returns "losses" and the `facts` of them,
        each [K] without gradient.

        `losses()` gives all losses, `loss_of(row)` that of one row of the batch, and `beside()`, asked after
        the former, a loss that belongs to no task, stays outside surgery and is averaged over ranks.
        `facts()`, asked after `losses` or every `loss_of`, gives [K] for each of `names`. Surgery waits until
        the batch holds all tasks. Raises DivergenceError, on all ranks, where surgery meets a number that is
        not finite on any.
        """
        count, size = len(ranks.tasks), ranks.reducer.size
        if self.surgery is not None and count == self.tasks:
            return self._operated(self.surgery, losses, loss_of, beside, facts, names, ranks)

        def make() -> Sums:
            made = losses()
            other = beside()
            total = ranks.counted(made).sum()
            total = total if other is None else total + count * (other / size if size > 1 else other)
            self._weights.write_gradients(self._gradients(total))
            told = {name: ranks.counted(values) for name, values in facts().items()}
            ranks.require_finite(made, self.name)
            return {"gradient": self._weights.gradient, "losses": ranks.counted(made.detach()), **told}

        found = self.plain(make, names, ranks)
        if self.surgery is not None:
            named = dict(zip(self._used, self._weights.split(self._weights.gradient), strict=True))
            for key, gradient in self.surgery.masked(named).items():
                named[key].copy_(gradient)
        return found

    def plain(self, make: Callable[[], Sums], names: Sequence[str], ranks: Ranks) -> Sums:
        """Adds up over ranks what `make` gives: "gradient" [P], of the summed losses, and this rank's parts
        of "losses" and `names`, [K] each.
        """
        self._told, self._again, count = {}, None, len(ranks.tasks)
        whole = self._weights.whole
        like: Like = {
            "gradient": (whole.shape, whole.dtype),
            **dict.fromkeys(("losses", *names), ((count,), whole.dtype)),
        }
        found = ranks.reducer.sums(make, like)
        self._weights.copy_(found["gradient"])
        self._share = 1.0 / count
        return found

    def _operated(
        self,
        surgery: GradientSurgery,
        losses: Callable[[], torch.Tensor],
        loss_of: Callable[[int], torch.Tensor],
        beside: Callable[[], torch.Tensor | None],
        facts: Callable[[], Mapping[str, torch.Tensor]],
        names: Sequence[str],
        ranks: Ranks,
    ) -> Sums:
        """`differentiate` by surgery."""
        count, size = self.tasks, ranks.reducer.size
        self._share = 1.0 / count
        other: torch.Tensor | None = None
        whole = True

        def together() -> torch.Tensor:
            nonlocal other, whole
            whole = True
            made = losses()
            other = beside()
            return made

        def alone(row: int) -> torch.Tensor:
            nonlocal whole
            whole = False
            return loss_of(row)

        combined = surgery.step(
            together, alone, reducer=ranks.reducer, portion=ranks.portion,
            retain_graph=lambda: other is not None,
        )  # fmt: skip
        self._told, self._again = combined.metrics, losses

        def aside() -> Sums:
            nonlocal other
            told = {name: ranks.counted(values) for name, values in facts().items()}
            if not whole:
                # what a loop leaves is of its last task, and the graph behind it is gone
                other = None
                if beside() is not None:
                    together()
            if other is None:
                return told
            made = self._gradients(other if size == 1 else other / size)
            return told | {f"beside/{key}": value for key, value in zip(self._used, made, strict=True)}

        apart = self._used if self._balanced else {}
        like: Like = {
            **dict.fromkeys(names, ((count,), self._weights.whole.dtype)),
            **{f"beside/{key}": (value.shape, value.dtype) for key, value in apart.items()},
        }
        found = dict(ranks.reducer.sums(aside, like))
        gradients = dict(combined.gradients)
        for key, parameter in self._used.items():
            if f"beside/{key}" in found:
                # so that the share leaves it whole
                extra = found.pop(f"beside/{key}") / self._share
                gradients[key] = gradients.get(key, torch.zeros_like(parameter)) + extra
            elif key not in gradients:
                gradients[key] = torch.zeros_like(parameter)
        self._weights.gather(surgery.masked(gradients))
        return {"losses": combined.losses, **found}

    def gather(self) -> float:
        """Turns the gradient of the summed losses into the clipped one of their mean over tasks; returns its
        norm before.
        """
        whole, share = self._weights.gradient, self._share
        norm = float(torch.linalg.vector_norm(whole)) * share
        clipped = self._clip and norm > self._clip
        shrink = share * (self._clip / (norm + 1e-6) if clipped else 1.0)
        if shrink != 1.0:
            whole.mul_(shrink)
        return norm

    def not_finite(self) -> list[str]:
        """Names of parameters whose gradient holds a number that is not finite."""
        pairs = zip(self._used, self._weights.split(self._weights.gradient), strict=True)
        return [f"{self.name}.{key}" for key, gradient in pairs if not torch.isfinite(gradient).all()]

    def step(self) -> dict[str, float]:
        """The optimiser's step on what `gather` left; returns what surgery has to tell."""
        self.optimizer.advance()
        return {f"gradients/{self.name}/{key}": value for key, value in self._told.items()}

    @property
    def perturbs(self) -> bool:
        """Whether `loss_of` is asked at other weights than the present ones (SAMO)."""
        return self.surgery is not None and self.surgery.config.perturbation > 0

    @property
    def needs_post_step(self) -> bool:
        """Whether surgery wants the losses of the same batch under the new weights."""
        return self._again is not None and self.surgery is not None and self.surgery.needs_post_step

    def observe_post_step_losses(self, ranks: Ranks) -> None:
        """Tells surgery those losses; `used` must have followed the step."""
        if self.surgery is not None and self._again is not None:
            with torch.no_grad():
                self.surgery.observe_post_step_losses(
                    self._again, reducer=ranks.reducer, portion=ranks.portion
                )

    def cosines(self) -> npt.NDArray[np.float64] | None:
        """[K, K], mean cosines between task gradients since the last call; None when none was measured."""
        return None if self.surgery is None else self.surgery.take_cosines()

    def state_dict(self) -> dict[str, Any]:
        """Optimiser and surgery; weights are the agent's."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "surgery": None if self.surgery is None else self.surgery.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`; the state must be no longer in use elsewhere."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.surgery is not None and state["surgery"] is not None:
            self.surgery.load_state_dict(state["surgery"])

    def _gradients(self, loss: torch.Tensor) -> list[torch.Tensor]:
        """The gradient of a number, for every parameter in order."""
        used = list(self._used.values())
        found = torch.autograd.grad(loss, used, allow_unused=True)
        pairs = zip(used, found, strict=True)
        return [torch.zeros_like(old) if new is None else new for old, new in pairs]


def not_finite(losses: Mapping[str, float], norms: Mapping[str, float], parts: Sequence[Part]) -> str:
    """Which task's losses, or which gradients, hold a number that is not finite; empty for none."""
    found = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
    steep = [part for part in parts if not math.isfinite(norms.get(part.name, 0.0))]
    found += [f"the gradient norm of {part.name} is {norms[part.name]}" for part in steep]
    return ", ".join(found + [name for part in steep for name in part.not_finite()][:3])
