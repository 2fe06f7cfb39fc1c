"""Behaviour cloning of the mean action, before the first round."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtrl.data import Bucket, RankDataset
from mtrl.errors import DivergenceError
from mtrl.reducer import Reducer
from mtrl.tasks import TaskSet
from mtrl.training import Datasets

from .config import CloningConfig
from .networks import StepBatch
from .student_actor import Actor


class Cloner:
    """Squared error between the mean action and the demonstrated one."""

    def __init__(
        self, config: CloningConfig, actor: Actor, tasks: TaskSet, seed: int, *, rank: int, ranks: int
    ) -> None:
        """Learns the weights of `actor`."""
        self.done = 0
        """Updates so far."""
        self._config, self._actor, self._ranks = config, actor, ranks
        self._named = {name: value for name, value in actor.named_parameters() if name != "log_std"}
        self._optimizer = torch.optim.Adam(self._named.values(), lr=config.learning_rate)
        self._data = RankDataset(tasks, 1, 1, ranks, "GRPO")
        self._draws = np.random.default_rng([seed, 4, rank])

    def ingest(self, data: Datasets) -> None:
        """Takes this rank's share of the demonstrations."""
        self._data.ingest(data.trajectories)

    def due(self, reducer: Reducer) -> int:
        """Updates that are left, once all ranks have demonstrations; sets the actor's statistics then."""
        if self.done >= self._config.updates:
            return 0
        if not self._data.ready and self._data.agree(reducer):
            self._actor.set_moments(self._data.moments)
        return self._config.updates - self.done if self._data.ready else 0

    def update(self, reducer: Reducer) -> dict[str, float]:
        """One step on a batch of all ranks, at a rate that falls to 0 along a cosine."""
        like = {name: (value.shape, torch.float32) for name, value in self._named.items()}
        found = dict(reducer.sums(self._gradients, {**like, "loss": ((), torch.float32)}))
        loss = float(found.pop("loss"))
        for name, value in self._named.items():
            value.grad = found[name]
        if not math.isfinite(loss):
            raise DivergenceError("cloning before GRPO", self.done + 1, f"loss {loss}")
        progress = self.done / self._config.updates
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
        self._optimizer.step()
        self.done += 1
        return {"cloning_loss": loss}

    def _gradients(self) -> dict[str, Tensor]:
        batch = self._data.sample(-(-self._config.batch_size // self._ranks), self._draws)
        state = batch.buckets["state"]
        seen = {"state": Bucket(state.values[:, :, 0], state.rows)}
        found = self._actor.distribution(StepBatch(batch.task_index, batch.weight, seen, {}))
        error = (found.mean - batch.fields["chunk"][:, :, 0]).square() * found.mask
        # the mean over the task's own dimensions, then over samples and tasks
        losses = batch.task_losses(error.sum(-1) / found.mask.sum(-1))
        portion = torch.ones(len(losses)) if self._data.portion is None else self._data.portion
        loss = (losses * portion).mean()
        gradients = torch.autograd.grad(loss, list(self._named.values()), allow_unused=True)
        named = zip(self._named.items(), gradients, strict=True)
        return {
            **{n: torch.zeros_like(v) if g is None else g for (n, v), g in named},
            "loss": loss.detach(),
        }

    def shared_state(self) -> dict[str, Any]:
        """Optimiser and progress."""
        return {"optimizer": self._optimizer.state_dict(), "done": self.done}

    def local_state(self) -> dict[str, Any]:
        """The draws of this rank."""
        return {"draws": self._draws.bit_generator.state}

    def restore(self, shared: Mapping[str, Any], local: Mapping[str, Any] | None) -> None:
        """Restores both."""
        self._optimizer.load_state_dict(shared["optimizer"])
        self.done = int(shared["done"])
        if local is not None:
            self._draws.bit_generator.state = local["draws"]
