"""Acting: one forward pass of the actor, and noise from each copy's own generator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtrl.data import Bucket
from mtrl.errors import ConfigError
from mtrl.nn import index_at, select_rows
from mtrl.rollout import LOG_PROBABILITY, Acting, Action, Extra, PolicySnapshot, PolicyState
from mtrl.spaces import Layout, Observation
from mtrl.structured import build
from mtrl.tasks import TaskSet

from .config import SACConfig
from .networks import Actor, BatchTasks


class SACPolicy:
    """Draws from the actor when exploring; otherwise its mean, or its most likely index."""

    extras: tuple[Extra, ...] = (LOG_PROBABILITY,)

    def __init__(self, actor: Actor, layout: Layout, version: int, hold: int = 1) -> None:
        """Shares the actor's weights; `hold` as in `ExplorationConfig`."""
        self.version = version
        self.actor = actor
        self._layout = layout
        self._holds = [2**power for power in range(hold.bit_length())] if layout.discrete_size else [1]
        # collection acts for the same selections of tasks repeatedly
        self._cached_batch_tasks = lru_cache(1024)(self._batch_tasks)

    def initial_state(self, count: int) -> PolicyState:
        """Where exploration holds draws, the uniform number last drawn for each copy, and the mean number of
        decisions for which its episode holds one; else empty.
        """
        if self._holds == [1]:
            return {}
        return {"draw": np.zeros(count), "hold": np.ones(count)}

    @torch.inference_mode()
    def act(
        self,
        observation: Observation,
        task_index: npt.NDArray[np.int64],
        state: PolicyState,
        ended: npt.NDArray[np.bool_],
        *,
        acting: Acting,
        generators: Sequence[np.random.Generator],
    ) -> Action:
        """Actions of N copies, in one batch where they belong to one task."""
        layout, count = self._layout, len(task_index)
        same_task = count == 1 or bool((task_index == task_index[0]).all())
        batch_tasks, filled = self._cached_batch_tasks(
            tuple((task_index[:1] if same_task else task_index).tolist())
        )
        shape = (1, count) if same_task else (count, 1)
        buckets = {}
        for name, rows in observation.items():
            where = filled[name]
            if len(where):
                values = select_rows(torch.from_numpy(rows).reshape(*shape, *rows.shape[1:]), where)
                if name == "state":
                    values = self.actor.observer.standardise(values, select_rows(batch_tasks.task, where))
                buckets[name] = Bucket(values, where)
        gaussian, log_policy = self.actor(buckets, batch_tasks, shape[1])
        densities = LOG_PROBABILITY.filled(count)
        action = Action(
            continuous=np.zeros((count, layout.continuous_size), dtype=np.float32),
            discrete=np.zeros(count, dtype=np.int64),
            state={name: values.copy() for name, values in state.items()},
            extras={LOG_PROBABILITY.name: densities} if acting.explore else {},
        )
        if gaussian is not None:
            copies = slice(None) if same_task else batch_tasks.continuous.numpy()
            drawing = [generators[c] for c in np.arange(count)[copies]]
            if acting.explore:
                noise = np.empty((len(drawing), layout.continuous_size), dtype=np.float32)
                for row, generator in zip(noise, drawing, strict=True):
                    generator.standard_normal(out=row, dtype=np.float32)
                vectors, log_probability = gaussian.sample(torch.from_numpy(noise).view(gaussian.mean.shape))
                densities[copies] = log_probability.flatten().numpy()
            else:
                vectors = gaussian.mode()
            action.continuous[copies] = vectors.flatten(0, 1).numpy()
        if log_policy is not None:
            copies = slice(None) if same_task else batch_tasks.discrete.numpy()
            rows = log_policy.flatten(0, 1).numpy()
            if acting.explore:
                policies = np.exp(rows.astype(np.float64))
                drawn = [
                    self._draw(action.state, copy, bool(ended[copy]), generators[copy])
                    for copy in np.arange(count)[copies]
                ]
                index = np.array([index_at(*pair) for pair in zip(policies, drawn, strict=True)])
                densities[copies] = rows[np.arange(len(rows)), index]
            else:
                index = rows.argmax(axis=1)
            action.discrete[copies] = index
        return action

    def _draw(self, state: PolicyState, copy: int, ended: bool, generator: np.random.Generator) -> float:
        """The uniform number that becomes an index; `state` of the copy is brought up to date."""
        if not state:
            return generator.random()
        if ended:
            state["hold"][copy] = generator.choice(self._holds)
        if ended or generator.random() * state["hold"][copy] < 1.0:
            state["draw"][copy] = generator.random()
        return float(state["draw"][copy])

    def _batch_tasks(self, tasks: tuple[int, ...]) -> tuple[BatchTasks, dict[str, Tensor]]:
        """`BatchTasks` of tasks [K], and bucket -> the rows whose tasks fill it."""
        filled = {
            bucket: torch.from_numpy(np.isin(tasks, self._layout.members(bucket)).nonzero()[0])
            for bucket in self._layout.buckets
        }
        return BatchTasks.of(torch.tensor(tasks), self._layout), filled


def actor_from(snapshot: PolicySnapshot, tasks: TaskSet) -> Actor:
    """The actor of a snapshot, for acting only."""
    config = build(SACConfig, snapshot.config)
    tensors = {name: torch.as_tensor(np.array(value)) for name, value in snapshot.tensors.items()}
    actor = Actor(tasks.layout, config.network, config.exploration, config.normalisation.clip)
    try:
        actor.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        named = ", ".join(tasks.names[:3]) + (", ..." if len(tasks) > 3 else "")
        (first, *rest) = str(error).strip().splitlines()
        raise ConfigError(
            f"the policy does not fit {named}. Play it on all the tasks that it was trained on, in their "
            f"order. ({(rest[0] if rest else first).strip()})"
        ) from error
    return actor.requires_grad_(False).eval()


def policy_from(snapshot: PolicySnapshot, tasks: TaskSet) -> SACPolicy:
    """The policy of a snapshot."""
    config = build(SACConfig, snapshot.config)
    return SACPolicy(actor_from(snapshot, tasks), tasks.layout, snapshot.version, config.exploration.hold)
