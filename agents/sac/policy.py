"""Acting: one forward pass of the actor, and noise from each copy's own generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtrl.data import ReplayConfig
from mtrl.rollout import Action, PolicySnapshot, PolicyState
from mtrl.spaces import Layout, Observation
from mtrl.tasks import TaskSet

from .config import ExplorationConfig, NetworkConfig, NormalisationConfig, SACConfig
from .losses import squashed_gaussian
from .networks import Actor


class SACPolicy:
    """Draws from the actor when exploring; otherwise its mean, or its most likely index."""

    def __init__(self, actor: Actor, layout: Layout, version: int) -> None:
        """Shares the actor's weights."""
        self.version = version
        self._actor, self._layout = actor, layout
        self._mask = torch.from_numpy(layout.continuous_mask.astype(np.float32))

    def initial_state(self, count: int) -> PolicyState:
        """No state."""
        return {}

    @torch.no_grad()
    def act(
        self,
        observation: Observation,
        task_index: npt.NDArray[np.int64],
        state: PolicyState,
        ended: npt.NDArray[np.bool_],
        *,
        explore: bool,
        generators: Sequence[np.random.Generator],
    ) -> Action:
        """Decides for N copies, at once where they belong to one task."""
        layout, count = self._layout, len(task_index)
        together = bool((task_index == task_index[0]).all())
        task = torch.from_numpy(task_index[:1] if together else task_index)
        shape = (1, count) if together else (count, 1)
        seen = {}
        for bucket, rows in observation.items():
            filled = np.isin(task.numpy(), layout.members(bucket)).nonzero()[0]
            if len(filled):
                values = torch.from_numpy(rows).reshape(*shape, *rows.shape[1:])
                values, where = values[filled], torch.from_numpy(filled)
                if bucket == "state":
                    values = self._actor.observer.standardise(values, task[where])
                seen[bucket] = (values, where)
        mean, log_deviation, log_policy = self._actor(seen, task, shape[1])
        way = self._actor.route(task)
        action = Action(
            continuous=np.zeros((count, layout.continuous_size), dtype=np.float32),
            discrete=np.zeros(count, dtype=np.int64),
            log_probability=np.full(count, np.nan, dtype=np.float32),
            state=state,
        )
        if len(way.continuous):
            copies = slice(None) if together else way.continuous.numpy()
            drawing = [generators[c] for c in np.arange(count)[copies]]
            noise = np.zeros((len(drawing), layout.continuous_size), dtype=np.float32)
            if explore:
                for row, generator in zip(noise, drawing, strict=True):
                    generator.standard_normal(out=row, dtype=np.float32)
            chosen, log_probability = squashed_gaussian(
                mean,
                log_deviation,
                torch.from_numpy(noise).reshape(mean.shape),
                self._mask[task[way.continuous]][:, None],
            )
            action.continuous[copies] = chosen.reshape(noise.shape).numpy()
            if explore:
                action.log_probability[copies] = log_probability.flatten().numpy()
        if len(way.discrete):
            copies = slice(None) if together else way.discrete.numpy()
            rows = log_policy.flatten(0, 1).numpy()
            if explore:
                drawing = [generators[c] for c in np.arange(count)[copies]]
                index = np.array(
                    [_draw(row, generator) for row, generator in zip(rows, drawing, strict=True)]
                )
                action.log_probability[copies] = rows[np.arange(len(rows)), index]
            else:
                index = rows.argmax(axis=1)
            action.discrete[copies] = index
        return action


def _draw(log_policy: npt.NDArray[np.float32], generator: np.random.Generator) -> int:
    """An index by inverting the cumulative distribution."""
    cumulative = np.exp(log_policy.astype(np.float64)).cumsum()
    # rounding may leave the last sum below the draw; an index without probability is never chosen
    return int(np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right"))


def config_from(settings: Mapping[str, Any]) -> SACConfig:
    """The config that a snapshot's JSON holds."""
    nested = dict(settings)
    normalisation = dict(nested["normalisation"])
    normalisation["refresh_at"] = tuple(normalisation["refresh_at"])
    return SACConfig(
        **{
            **nested,
            "network": NetworkConfig(**nested["network"]),
            "exploration": ExplorationConfig(**nested["exploration"]),
            "normalisation": NormalisationConfig(**normalisation),
            "replay": ReplayConfig(**nested["replay"]),
        }
    )


def policy_from(snapshot: PolicySnapshot, tasks: TaskSet) -> SACPolicy:
    """The policy of a snapshot."""
    config = config_from(snapshot.config)
    tensors = {name: torch.as_tensor(np.array(value)) for name, value in snapshot.tensors.items()}
    actor = Actor(tasks.layout, config.network, config.exploration, config.normalisation.clip)
    actor.load_state_dict(tensors, assign=True)
    return SACPolicy(actor.requires_grad_(False).eval(), tasks.layout, snapshot.version)
