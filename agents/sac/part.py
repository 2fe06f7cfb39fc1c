"""Parameters that move together: one optimiser, and one way to combine the gradients of the tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtrl.gradients import GradientSurgery, SurgeryConfig, TaskRows

from .adam import VectorAdam
from .config import SACConfig
from .fast import Fast


class Part:
    """The critics, or the actor: named parameters under Adam, differentiated by task losses [K].

    Without surgery a step costs one plain backward pass of the summed losses. With it, `differentiate`
    leaves one row per task where the weighting asks for rows, so that data-parallel ranks may add them,
    and `gather` combines; otherwise it leaves the weighted gradient itself.
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
        self._rows: TaskRows | None = None
        self._told: dict[str, float] = {}
        self._again: Callable[[], torch.Tensor] | None = None

    def differentiate(
        self,
        losses: Callable[[], torch.Tensor],
        loss_of: Callable[[int], torch.Tensor],
        beside: Callable[[], torch.Tensor | None],
        count: int,
    ) -> tuple[Mapping[str, torch.Tensor], torch.Tensor]:
        """Parameter name -> [1 or K, ...], sums over tasks, which `gather` and the next call write over;
        and the losses [K], without gradient.

        `losses()` gives all `count` losses, `loss_of(row)` that of one row of the batch, and `beside()`,
        asked after the former, a loss that belongs to no task and stays outside surgery (names that begin
        with "beside/"). Surgery waits until the batch holds all tasks. Raises DivergenceError where surgery
        meets a number that is not finite.
        """
        self._rows, self._told, self._again = None, {}, None
        surgery = self.surgery
        if surgery is None or count < self.tasks:
            made = losses()
            other = beside()
            total = made.sum() if other is None else made.sum() + count * other
            plain = self._gradients(total)
            if surgery is None:
                return self._weights.lay(plain), made.detach()
            return {key: new[None] for key, new in zip(self._used, plain, strict=True)}, made.detach()
        self._again = losses
        if surgery.takes_rows():
            other = None
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

            self._rows, made = surgery.measured_rows(together, alone, lambda: other is not None)
            if not whole:
                # what a loop leaves is of its last task, and the graph behind it is gone
                other = None
                if beside() is not None:
                    together()
            aside = None if other is None else self._gradients(other)
            sums = {
                key: values if key in self._rows.shared else _like(values, self._used[key])[None]
                for key, values in self._rows.sums().items()
            }
        else:
            made = losses()
            other = beside()
            # before the pass of the losses, which frees the graph that both share
            aside = None if other is None else self._gradients(other, keep_graph=True)
            combined = surgery.step(made)
            self._told = combined.metrics
            sums = {key: gradient[None] for key, gradient in combined.gradients.items()}
        if aside is not None:
            sums |= {f"beside/{key}": gradient[None] for key, gradient in zip(self._used, aside, strict=True)}
        return sums, made.detach()

    def gather(self, sums: Mapping[str, torch.Tensor], counts: torch.Tensor, losses: torch.Tensor) -> float:
        """Turns sums, added over ranks, into every parameter's `.grad`: the mean over tasks; returns its
        norm. `counts` and `losses` are [K].
        """
        if self.surgery is not None:
            gradients, share = self._combined(self.surgery, sums, counts, losses)
        else:
            gradients, share = {key: sums[key] for key in self._used}, 1.0 / sum(counts.tolist())
        whole = self._weights.gather(gradients)
        norm = float(torch.linalg.vector_norm(whole)) * share
        clipped = self._clip and norm > self._clip
        shrink = share * (self._clip / (norm + 1e-6) if clipped else 1.0)
        if shrink != 1.0:
            whole.mul_(shrink)
        return norm

    def _combined(
        self,
        surgery: GradientSurgery,
        sums: Mapping[str, torch.Tensor],
        counts: torch.Tensor,
        losses: torch.Tensor,
    ) -> tuple[dict[str, torch.Tensor], float]:
        """Gradients by name, combined where that waited for the ranks, and what makes them a mean."""
        if self._rows is not None:
            rows = self._rows
            for key in rows.shared:
                rows.shared[key] = sums[key]
            for key, own in rows.owned.items():
                own.gradient = sums[key][0].view_as(own.gradient)
            rows.divide(counts)
            combined = surgery.combine(rows, losses / counts)
            self._told = combined.metrics
            gradients, share = dict(combined.gradients), 1.0 / len(counts)
        else:
            gradients = {key: sums[key][0] for key in self._used}
            share = 1.0 / sum(counts.tolist())
        for key, parameter in self._used.items():
            if f"beside/{key}" in sums:
                # the mean over ranks, and so that the division below leaves it whole
                other = sums[f"beside/{key}"][0] / (share * float(counts.max()))
                gradients[key] = gradients.get(key, torch.zeros_like(parameter)) + other
            elif key not in gradients:
                gradients[key] = torch.zeros_like(parameter)
        return surgery.masked(gradients), share

    def step(self) -> dict[str, float]:
        """The optimiser's step on what `gather` left; returns what surgery has to tell."""
        self.optimizer.advance()
        return {f"gradients/{self.name}/{key}": value for key, value in self._told.items()}

    @property
    def perturbs(self) -> bool:
        """Whether `loss_of` is asked at other weights than the present ones (SAMO)."""
        return self.surgery is not None and self.surgery.config.perturbation > 0

    @property
    def asks_again(self) -> bool:
        """Whether surgery wants the losses of the same batch under the new weights."""
        return self._again is not None and self.surgery is not None and self.surgery.wants_losses_after

    def look_back(self) -> None:
        """Tells surgery those losses; `used` must have followed the step."""
        if self.surgery is not None and self._again is not None:
            with torch.no_grad():
                self.surgery.after_step(self._again())

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

    def _gradients(self, loss: torch.Tensor, *, keep_graph: bool = False) -> list[torch.Tensor]:
        """The gradient of a number, for every parameter in order."""
        used = list(self._used.values())
        found = torch.autograd.grad(loss, used, allow_unused=True, retain_graph=keep_graph)
        pairs = zip(used, found, strict=True)
        return [torch.zeros_like(old) if new is None else new for old, new in pairs]


def _like(gradient: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """In the parameter's shape, where the network uses it in another."""
    return gradient.view_as(parameter) if gradient.numel() == parameter.numel() else gradient
