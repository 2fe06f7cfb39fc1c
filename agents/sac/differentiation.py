"""From a batch's losses to gradients of the critics and of the actor."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mtrl.nn import torso_diagnostics

from .explicit import ExplicitUpdate
from .fast import Fast
from .learning import Learning, Sample, actor_losses, critic_losses, only, targets
from .networks import picked, spread
from .part import Part


class Differentiation:
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
        """"critic", "value", "actor", "entropy" -> [K] of the latest batch, without gradient."""

    def critic(
        self, sample: Sample, sums: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Fills in "critic.NAME"; returns the losses [K], and what the critics saw if `actor` is to know."""
        learning, fast, count = self._learning, self._fast, sample.way.count
        if self.explicit is not None and self.explicit.serves(sample):
            plain, made, goal = self.explicit.critic(sample, sample.noise(self._noise), self.shares)
            sums |= {f"critic.{name}": rows for name, rows in plain.items()}
            self.losses = {"critic": made, "value": goal.mean(1)}
            return made, None
        goal = targets(learning, fast.actor, fast.target, sample, sample.noise(self._noise))
        seen: list[torch.Tensor] = []

        def losses() -> torch.Tensor:
            found, observed = critic_losses(learning, fast.critic, sample, goal)
            seen[:] = [observed]
            return self._counted(found, sample.way.task)

        def loss_of(row: int) -> torch.Tensor:
            alone = only(sample, row)
            found, _ = critic_losses(learning, fast.critic, alone, goal[row : row + 1])
            return self._counted(found, alone.way.task)[0]

        beside = fast.critic.network.torso.balance_loss
        found, made = self._parts["critic"].differentiate(losses, loss_of, beside, count)
        sums |= {f"critic.{name}": rows for name, rows in found.items()}
        self.losses = {"critic": made, "value": goal.mean(1)}
        if not seen:
            with torch.no_grad():
                seen.append(fast.critic.observer(sample.decided, count, sample.width))
        return made, seen[0]

    def actor(self, sample: Sample, observed: torch.Tensor | None, sums: dict[str, torch.Tensor]) -> None:
        """Fills in "actor.NAME" and "temperature.log"; `observed` is what `critic` returned for the batch."""
        way, noise, count = sample.way, sample.noise(self._noise), sample.way.count
        part = self._parts["actor"]
        if self.explicit is not None and self.explicit.serves(sample):
            plain, made, entropy = self.explicit.actor(sample, noise, self.shares)
            sums |= {f"actor.{name}": rows for name, rows in plain.items()}
            self._temperature(sample, made, entropy, sums)
            return
        assert observed is not None, "the critics saw it by autograd too"
        # [1] of each row at the weights as they are, as it was when the losses were asked for last
        entropies = [torch.empty(0)] * count
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

        beside = actor.network.torso.balance_loss
        with self._fast.advising():
            found, made = part.differentiate(losses, loss_of, beside, count)
        sums |= {f"actor.{name}": rows for name, rows in found.items()}
        self._temperature(sample, made, torch.cat(entropies), sums)

    def _temperature(
        self, sample: Sample, losses: torch.Tensor, entropy: torch.Tensor, sums: dict[str, torch.Tensor]
    ) -> None:
        """Fills in "temperature.log": d/d(log alpha) of log alpha (H - H_target); see
        `losses.temperature_loss`.
        """
        target, task = self._learning.target_entropy, sample.way.task
        slope = entropy - picked(target, task, 0)
        sums["temperature.log"] = spread(slope, task, target.shape[0])[None]
        self.losses |= {"actor": losses, "entropy": entropy}

    def _counted(self, losses: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        """Losses of the tasks `task`, weighted by what they count. Those of tasks that ran away (PaCo) keep
        their value and lose their gradient.
        """
        counted = losses if self.shares is None else losses * self.shares.index_select(0, task)
        torso = self._fast.critic.network.torso
        if torso.config.kind != "paco":
            return counted
        return counted.where(~torso.runaway(counted), counted.detach())


@torch.no_grad()
def look_inside(fast: Fast, sample: Sample) -> dict[str, float]:
    """What the torsos look like inside for one batch: "torso/critic/dormant_units" and others."""
    task, width = sample.way.task, sample.width
    seen = fast.critic.observer(sample.decided, len(task), width)
    acted = sample.continuous if sample.way.acts_by_vector else None
    inside = {
        "actor": (fast.actor.network, fast.actor.observer(sample.decided, len(task), width)),
        "critic": (fast.critic.network, fast.critic.inputs(seen, sample.way, acted)),
    }
    return {
        f"torso/{part}/{name}": value
        for part, (network, features) in inside.items()
        for name, value in torso_diagnostics(network.torso, features, task).items()
    }
