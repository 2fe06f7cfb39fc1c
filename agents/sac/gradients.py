"""From a batch's losses to gradients of critics and actor, and the optimisers that step on them.

`GradientComputation` uses autograd; by default `explicit.py` takes its place (states, perceptrons, no
surgery, CPU).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtrl.gradients import GradientSurgery, require_finite
from mtrl.reducer import Like, Reducer, Sums

from .config import SACConfig
from .losses import TrainingBatch, actor_losses, critic_losses, td_target
from .networks import MixedPrecisionNetworks, TwinCritic


@dataclass(frozen=True)
class UpdateContext:
    """The tasks of an update, and which of their samples are on this rank."""

    reducer: Reducer
    portion: Tensor | None
    """[K], the share of each task's samples that is on this rank; None for a single process."""
    shares: Tensor | None
    """[T], what the loss of each task is multiplied by; None for 1 each."""
    update: int
    """Number of this update, from 0."""
    tasks: Sequence[str]
    """Names of the K tasks."""

    def partial(self, values: Tensor) -> Tensor:
        """[K] as this rank's part of a mean over all ranks' samples."""
        return values if self.portion is None else values * self.portion.to(values)

    def require_finite(self, losses: Tensor, name: str) -> None:
        """Of several ranks, names the one whose losses [K] are not finite, which their sum does not."""
        if self.reducer.size > 1:
            require_finite(losses, f"the {name}'s loss", self.update, self.tasks)


@dataclass(frozen=True)
class TaskLosses:
    """How the losses of a batch are computed; every function may be called more than once."""

    losses: Callable[[], Tensor]
    """[K]"""
    loss_of: Callable[[int], Tensor]
    """The loss of one row of the batch."""
    auxiliary: Callable[[], Tensor | None]
    """After `losses`: a loss that belongs to no task, stays outside surgery and is averaged over ranks."""
    statistic: Callable[[], Tensor]
    """After `losses` or every `loss_of`: another value per task, [K]."""
    name: str
    """Name of the statistic."""


class OptimizerGroup:
    """The critics, or the actor: named parameters under Adam, differentiated by task losses [K].

    Without surgery a step costs one backward pass of the summed losses, and one sum over ranks.
    """

    def __init__(
        self,
        name: str,
        networks: MixedPrecisionNetworks,
        config: SACConfig,
        tasks: int,
        seed: int,
        *further: dict[str, Any],
    ) -> None:
        """`name` is "critic" or "actor", one of `networks`; `further` are groups of the same optimiser.
        Raises UnsupportedError for a weighting that does not serve.
        """
        self.name, self.tasks = name, tasks
        self.weights = networks.weights[name]
        """Their `gradient` is what `step` moves along."""
        self._used = networks.used[name].named
        self._clip = config.gradient_clip
        self.optimizer = torch.optim.Adam(
            [{"params": [self.weights.vector]}, *further],
            lr=config.learning_rate,
            eps=config.adam_epsilon,
            fused=True,
        )
        self.surgery: GradientSurgery | None = None
        if config.gradients.covers(name) and not config.gradients.plain:
            signed = "the actor's loss" if name == "actor" else ""
            self.surgery = GradientSurgery(self._used, config.gradients, tasks, seed, signed=signed)
        torso = config.network.torso
        self._balanced = torso.kind == "experts" and torso.experts.switch > 0
        self._scale = 1.0
        self._metrics: dict[str, float] = {}
        self._latest: Callable[[], Tensor] | None = None

    def differentiate(self, functions: TaskLosses, context: UpdateContext) -> Sums:
        """Writes the gradient of all ranks' samples for `clip`; returns "losses" and the statistic,
        each [K] without gradient.

        Surgery waits until the batch holds all tasks. Raises DivergenceError, on all ranks, where surgery
        meets a number that is not finite on any.
        """
        count, size = len(context.tasks), context.reducer.size
        if self.surgery is not None and count == self.tasks:
            return self._combine(self.surgery, functions, context)

        def compute() -> Sums:
            losses = functions.losses()
            auxiliary = functions.auxiliary()
            total = context.partial(losses).sum()
            if auxiliary is not None:
                total = total + count * (auxiliary / size if size > 1 else auxiliary)
            self.weights.write_gradients(self._gradients(total))
            statistic = context.partial(functions.statistic())
            context.require_finite(losses, self.name)
            return {
                "gradient": self.weights.gradient,
                "losses": context.partial(losses.detach()),
                functions.name: statistic,
            }

        sums = self.reduce(compute, functions.name, context)
        if self.surgery is not None:
            parts = self.weights.split(self.weights.gradient)
            named = dict(zip(self._used, parts, strict=True))
            for key, gradient in self.surgery.masked(named).items():
                named[key].copy_(gradient)
        return sums

    def reduce(self, compute: Callable[[], Sums], statistic: str, context: UpdateContext) -> Sums:
        """Adds up over ranks what `compute` returns: "gradient" [P], of the summed losses, and this rank's
        parts of "losses" and `statistic`, [K] each.
        """
        self._metrics, self._latest, count = {}, None, len(context.tasks)
        vector = self.weights.vector
        like: Like = {
            "gradient": (vector.shape, vector.dtype),
            "losses": ((count,), vector.dtype),
            statistic: ((count,), vector.dtype),
        }
        sums = context.reducer.sums(compute, like)
        self.weights.copy_(sums["gradient"])
        self._scale = 1.0 / count
        return sums

    def _combine(self, surgery: GradientSurgery, functions: TaskLosses, context: UpdateContext) -> Sums:
        """`differentiate` by surgery."""
        size = context.reducer.size
        self._scale = 1.0 / self.tasks
        auxiliary: Tensor | None = None
        one_pass = True

        def all_losses() -> Tensor:
            nonlocal auxiliary, one_pass
            one_pass = True
            losses = functions.losses()
            auxiliary = functions.auxiliary()
            return losses

        def one_loss(row: int) -> Tensor:
            nonlocal one_pass
            one_pass = False
            return functions.loss_of(row)

        combined = surgery.step(
            all_losses, one_loss, reducer=context.reducer, portion=context.portion,
            retain_graph=lambda: auxiliary is not None,
        )  # fmt: skip
        self._metrics, self._latest = combined.metrics, functions.losses

        def compute() -> Sums:
            nonlocal auxiliary
            values = {functions.name: context.partial(functions.statistic())}
            if not one_pass:
                # after a loop the auxiliary loss is of the last task alone, and its graph is freed
                auxiliary = None
                if functions.auxiliary() is not None:
                    all_losses()
            if auxiliary is None:
                return values
            gradients = self._gradients(auxiliary if size == 1 else auxiliary / size)
            return values | {
                f"auxiliary/{key}": value for key, value in zip(self._used, gradients, strict=True)
            }

        balanced = self._used if self._balanced else {}
        like: Like = {
            functions.name: ((self.tasks,), self.weights.vector.dtype),
            **{f"auxiliary/{key}": (value.shape, value.dtype) for key, value in balanced.items()},
        }
        sums = dict(context.reducer.sums(compute, like))
        gradients = dict(combined.gradients)
        for key, parameter in self._used.items():
            if f"auxiliary/{key}" in sums:
                # divided by the scale that `clip` multiplies by
                extra = sums.pop(f"auxiliary/{key}") / self._scale
                gradients[key] = gradients.get(key, torch.zeros_like(parameter)) + extra
            elif key not in gradients:
                gradients[key] = torch.zeros_like(parameter)
        self.weights.write_gradients(surgery.masked(gradients))
        return {"losses": combined.losses, **sums}

    def clip(self) -> float:
        """Turns the gradient of the summed losses into the clipped one of their mean over tasks; returns its
        norm before.
        """
        gradient = self.weights.gradient
        norm = float(torch.linalg.vector_norm(gradient)) * self._scale
        clipped = self._clip and norm > self._clip
        factor = self._scale * (self._clip / (norm + 1e-6) if clipped else 1.0)
        if factor != 1.0:
            gradient.mul_(factor)
        return norm

    def not_finite(self) -> list[str]:
        """Names of parameters whose gradient holds a number that is not finite."""
        pairs = zip(self._used, self.weights.split(self.weights.gradient), strict=True)
        return [f"{self.name}.{key}" for key, gradient in pairs if not torch.isfinite(gradient).all()]

    def step(self) -> dict[str, float]:
        """The optimiser's step on the clipped gradient; returns surgery's metrics."""
        self.optimizer.step()
        return {f"gradients/{self.name}/{key}": value for key, value in self._metrics.items()}

    @property
    def perturbs(self) -> bool:
        """Whether `loss_of` is called at other weights than the present ones (SAMO)."""
        return self.surgery is not None and self.surgery.config.perturbation > 0

    @property
    def needs_post_step(self) -> bool:
        """Whether surgery needs the losses of the same batch under the new weights."""
        return self._latest is not None and self.surgery is not None and self.surgery.needs_post_step

    def observe_post_step_losses(self, context: UpdateContext) -> None:
        """Passes those losses to surgery; after the networks' `sync`."""
        if self.surgery is not None and self._latest is not None:
            with torch.no_grad():
                self.surgery.observe_post_step_losses(
                    self._latest, reducer=context.reducer, portion=context.portion
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
        """Restores `state_dict`, whose tensors become the optimiser's own."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.surgery is not None and state["surgery"] is not None:
            self.surgery.load_state_dict(state["surgery"])

    def _gradients(self, loss: Tensor) -> list[Tensor]:
        """The gradient of a scalar, for every parameter in order."""
        used = list(self._used.values())
        gradients = torch.autograd.grad(loss, used, allow_unused=True)
        pairs = zip(used, gradients, strict=True)
        return [torch.zeros_like(old) if new is None else new for old, new in pairs]


def not_finite(
    losses: Mapping[str, float], norms: Mapping[str, float], groups: Sequence[OptimizerGroup]
) -> str:
    """Which task's losses, or which gradients, hold a number that is not finite; empty for none."""
    problems = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
    steep = [group for group in groups if not math.isfinite(norms.get(group.name, 0.0))]
    problems += [f"the gradient norm of {group.name} is {norms[group.name]}" for group in steep]
    return ", ".join(problems + [name for group in steep for name in group.not_finite()][:3])


class GradientComputation:
    """The gradients of an update by autograd, both on the weights as they are; changes no weight."""

    def __init__(
        self,
        config: SACConfig,
        networks: MixedPrecisionNetworks,
        groups: Mapping[str, OptimizerGroup],
        generator: torch.Generator,
    ) -> None:
        """`generator` draws the actions' noise."""
        self._config, self._networks, self._groups, self._generator = config, networks, groups, generator
        self._features: Tensor | None = None

    def critic(self, batch: TrainingBatch, context: UpdateContext) -> Sums:
        """Writes the critics' gradient into their group; returns "losses" and "value" [K] of all ranks."""
        networks, features = self._networks, list[Tensor]()

        @cache
        @torch.no_grad()
        def target() -> Tensor:
            noise, batch_tasks, critic = batch.noise(self._generator), batch.tasks, networks.target
            policy = networks.actor(batch.next_observation, batch_tasks, batch.samples)
            features = critic.observer(batch.next_observation, batch_tasks.count, batch.samples)
            values = partial(critic, features, batch_tasks)
            return td_target(self._config, batch, noise, policy, values, critic.head)

        def losses() -> Tensor:
            task_losses, latest = critic_losses(networks.critic, batch, target())
            features[:] = [latest]
            return self._task_weighted(task_losses, batch, context)

        def loss_of(row: int) -> Tensor:
            one_task = batch.for_row(row)
            task_losses, _ = critic_losses(networks.critic, one_task, target()[row : row + 1])
            return self._task_weighted(task_losses, one_task, context)[0]

        def value() -> Tensor:
            if not features:
                with torch.no_grad():
                    arguments = (batch.observation, batch.tasks.count, batch.samples)
                    features.append(networks.critic.observer(*arguments))
            return target().mean(1)

        auxiliary = networks.critic.network.torso.balance_loss
        functions = TaskLosses(losses, loss_of, auxiliary, value, "value")
        sums = self._groups["critic"].differentiate(functions, context)
        self._features = features[0]
        return sums

    def actor(self, batch: TrainingBatch, context: UpdateContext) -> Sums:
        """Writes the actor's gradient into its group, after `critic` of the same batch; returns "losses" and
        "entropy" [K].
        """
        features, group = self._features, self._groups["actor"]
        assert features is not None, "expected a call of `critic` with the same batch first"
        batch_tasks, noise = batch.tasks, batch.noise(self._generator)
        # [1] of each row, at the weights as they are
        entropies = [torch.empty(0)] * batch_tasks.count
        actor, critic = self._networks.actor, self._networks.critic

        def losses() -> Tensor:
            task_losses, entropy = actor_losses(actor, critic, features, batch, noise)
            entropies[:] = entropy.split(1)
            return self._task_weighted(task_losses, batch, context)

        def loss_of(row: int) -> Tensor:
            one_task, its_noise = batch.for_row(row), noise[batch_tasks.continuous == row]
            task_losses, entropy = actor_losses(actor, critic, features[row : row + 1], one_task, its_noise)
            if not group.perturbs:
                entropies[row] = entropy
            return self._task_weighted(task_losses, one_task, context)[0]

        auxiliary = actor.network.torso.balance_loss
        functions = TaskLosses(losses, loss_of, auxiliary, lambda: torch.cat(entropies), "entropy")
        with _evaluating(critic):
            return group.differentiate(functions, context)

    def _task_weighted(self, losses: Tensor, batch: TrainingBatch, context: UpdateContext) -> Tensor:
        """Losses [K] by the shares of their tasks. Those of diverged tasks (PaCo) keep their value and lose
        their gradient.
        """
        if context.shares is not None:
            losses = losses * context.shares.index_select(0, batch.tasks.task)
        torso = self._networks.critic.network.torso
        return (
            losses.where(~torso.diverged(losses), losses.detach()) if torso.config.kind == "paco" else losses
        )


@contextmanager
def _evaluating(critic: TwinCritic) -> Iterator[None]:
    """Loads of the critics' experts are counted, and evened out, where the critics themselves learn."""
    critic.eval()
    try:
        yield
    finally:
        critic.train()
