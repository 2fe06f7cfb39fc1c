"""From a batch's losses to gradients of the critics and of the actor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from mtrl.nn import Torso, scatter_rows, select_rows, torso_diagnostics
from mtrl.reducer import Reducer, Sums

from .explicit import ExplicitUpdate
from .fast import Fast
from .learning import Learning, Sample, actor_losses, critic_losses, only, targets
from .networks import Routing
from .part import Part, Ranks


class GradientComputation:
    """The two halves of an update; both are taken on the weights as they are, and change none."""

    def __init__(
        self, learning: Learning, fast: Fast, parts: Mapping[str, Part], noise: torch.Generator
    ) -> None:
        """`noise` draws the actions."""
        self._learning, self._fast, self._parts, self._noise = learning, fast, parts, noise
        plain = all(part.surgery is None for part in parts.values())
        self.explicit = ExplicitUpdate.of(learning, fast) if plain else None
        """What takes the place of autograd where it serves."""
        self.shares: torch.Tensor | None = None
        """[T], what the loss of each task is multiplied by; None for 1 each."""
        self.losses: dict[str, torch.Tensor] = {}
        """"critic", "value", "actor", "entropy" -> [K] of the latest batch of all ranks, without gradient."""

    def critic(self, sample: Sample, ranks: Ranks) -> torch.Tensor | None:
        """Leaves the critics' gradient with their part; returns what they saw if `actor` is to know."""
        learning, fast, part = self._learning, self._fast, self._parts["critic"]
        if self.explicit is not None and self.explicit.serves(sample):
            explicit = self.explicit

            def make() -> Sums:
                shares = self._shares(ranks)
                made, goal = explicit.critic(sample, sample.noise(self._noise), shares)
                ranks.require_finite(made, part.name)
                value = ranks.counted(goal.mean(1))
                return {"gradient": fast.weights["critic"].gradient, "losses": made, "value": value}

            found = part.plain(make, ("value",), ranks)
            self.losses = {"critic": found["losses"], "value": found["value"]}
            return None
        goals: list[torch.Tensor] = []
        seen: list[torch.Tensor] = []

        def goal_of() -> torch.Tensor:
            if not goals:
                noise = sample.noise(self._noise)
                goals.append(targets(learning, fast.actor, fast.target, sample, noise))
            return goals[0]

        def losses() -> torch.Tensor:
            found, observed = critic_losses(fast.critic, sample, goal_of())
            seen[:] = [observed]
            return self._counted(found, sample.way.task)

        def loss_of(row: int) -> torch.Tensor:
            alone = only(sample, row)
            found, _ = critic_losses(fast.critic, alone, goal_of()[row : row + 1])
            return self._counted(found, alone.way.task)[0]

        def facts() -> Sums:
            if not seen:
                with torch.no_grad():
                    seen.append(fast.critic.observer(sample.decided, sample.way.count, sample.width))
            return {"value": goal_of().mean(1)}

        beside = fast.critic.network.torso.balance_loss
        found = part.differentiate(losses, loss_of, beside, facts, ("value",), ranks)
        self.losses = {"critic": found["losses"], "value": found["value"]}
        return seen[0]

    def actor(self, sample: Sample, observed: torch.Tensor | None, ranks: Ranks) -> torch.Tensor:
        """Leaves the actor's gradient with its part; returns that of the log temperatures [T]. `observed` is
        what `critic` returned for the batch.
        """
        way, part = sample.way, self._parts["actor"]
        if self.explicit is not None and self.explicit.serves(sample):
            explicit = self.explicit

            def make() -> Sums:
                made, entropy = explicit.actor(sample, sample.noise(self._noise), self._shares(ranks))
                ranks.require_finite(made, part.name)
                gradient = self._fast.weights["actor"].gradient
                return {"gradient": gradient, "losses": made, "entropy": ranks.counted(entropy)}

            return self._temperature(sample, part.plain(make, ("entropy",), ranks))
        assert observed is not None, "the critics saw it by autograd too"
        noise = sample.noise(self._noise)
        # [1] of each row at the weights as they are, as it was when the losses were asked for last
        entropies = [torch.empty(0)] * way.count
        actor, critic = self._fast.actor, self._fast.critic

        def losses() -> torch.Tensor:
            found, every = actor_losses(actor, critic, observed, sample, noise)
            entropies[:] = every.split(1)
            return self._counted(found, way.task)

        def loss_of(row: int) -> torch.Tensor:
            place = (way.continuous == row).nonzero().squeeze(1)
            alone = only(sample, row)
            found, its = actor_losses(actor, critic, observed[row : row + 1], alone, noise[place])
            if not part.perturbs:
                entropies[row] = its
            return self._counted(found, alone.way.task)[0]

        def facts() -> Sums:
            return {"entropy": torch.cat(entropies)}

        beside = actor.network.torso.balance_loss
        with self._fast.advising():
            found = part.differentiate(losses, loss_of, beside, facts, ("entropy",), ranks)
        return self._temperature(sample, found)

    def _temperature(self, sample: Sample, found: Sums) -> torch.Tensor:
        """[T], d/d(log alpha) of log alpha (H - H_target); see `losses.temperature_loss`."""
        target, task = self._learning.target_entropy, sample.way.task
        slope = found["entropy"] - select_rows(target, task)
        self.losses |= {"actor": found["losses"], "entropy": found["entropy"]}
        return scatter_rows(slope, task, target.shape[0])

    def _shares(self, ranks: Ranks) -> torch.Tensor | None:
        """[T], what the losses of a batch of all tasks are multiplied by."""
        if ranks.portion is None:
            return self.shares
        return ranks.portion if self.shares is None else self.shares * ranks.portion

    def _counted(self, losses: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        """Losses of the tasks `task`, weighted by what they count. Those of tasks that ran away (PaCo) keep
        their value and lose their gradient.
        """
        counted = losses if self.shares is None else losses * self.shares.index_select(0, task)
        torso = self._fast.critic.network.torso
        if torso.config.kind != "paco":
            return counted
        return counted.where(~torso.runaway(counted), counted.detach())

    def reset_runaways(
        self, torsos: Mapping[str, Torso], way: Routing, reducer: Reducer, seed: Sequence[int]
    ) -> None:
        """Gives tasks whose loss exploded another mixture of the torsos (PaCo), by part. Ranks draw it alike,
        from `seed`.
        """
        draws = self._noise
        if reducer.size > 1:
            number = int(np.random.SeedSequence(list(seed)).generate_state(1)[0])
            draws = torch.Generator(way.task.device).manual_seed(number)
        for name, torso in torsos.items():
            torso.reset_tasks(self.losses[name], way.task, draws)

    def named_losses(self, tasks: Sequence[str]) -> dict[str, float]:
        """Numbers for the metrics, brought from the device at once; `tasks` are those of the batch."""
        named = {"critic": "critic_loss", "actor": "actor_loss"}
        found = self.losses
        values = torch.stack([value.float() for value in found.values()]).tolist() if found else []
        return {
            f"{named.get(kind, kind)}/{name}": value
            for kind, row in zip(found, values, strict=True)
            for name, value in zip(tasks, row, strict=True)
        }


@torch.no_grad()
def torso_metrics(fast: Fast, sample: Sample, reducer: Reducer) -> dict[str, float]:
    """What the torsos look like inside for one batch: "torso/critic/dormant_units" and others; of several
    ranks the mean over their batches.
    """
    task, width = sample.way.task, sample.width
    seen = fast.critic.observer(sample.decided, len(task), width)
    acted = sample.continuous if sample.way.acts_by_vector else None
    inside = {
        "actor": (fast.actor.network, fast.actor.observer(sample.decided, len(task), width)),
        "critic": (fast.critic.network, fast.critic.inputs(seen, sample.way, acted)),
    }
    found = {
        f"torso/{part}/{name}": value
        for part, (network, features) in inside.items()
        for name, value in torso_diagnostics(network.torso, features, task).items()
    }
    values = torch.tensor(list(found.values()), dtype=torch.float64)
    whole = reducer.sums(lambda: {"values": values}, {"values": (values.shape, values.dtype)})["values"]
    return dict(zip(found, (whole / reducer.size).tolist(), strict=True))
