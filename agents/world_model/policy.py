"""Acts by the policy prior or by planning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from mtrl.errors import ConfigError
from mtrl.nn import draw_index
from mtrl.rollout import LOG_PROBABILITY, Acting, Action, Extra, PolicySnapshot, PolicyState
from mtrl.spaces import Layout, Observation
from mtrl.structured import build
from mtrl.tasks import TaskSet

from .config import WorldModelConfig
from .networks import Seen, WorldModel
from .planning import Planner, Search

FloatRows = npt.NDArray[np.float32]


def plan_extras(config: WorldModelConfig, layout: Layout) -> tuple[Extra, ...]:
    """The log-probability under the prior; where plans are imitated, what was planned: the mean of a
    continuous action, the probabilities of a discrete one, NaN where nothing was planned.
    """
    if config.losses.cloning == 0:
        return (LOG_PROBABILITY,)
    planned = Extra("planned", (layout.continuous_size + layout.discrete_size,), replayed=True)
    return (LOG_PROBABILITY, planned)


class WorldModelPolicy:
    """The prior, or a plan from it; the plan before is shifted by a step and searched from."""

    def __init__(
        self,
        model: WorldModel,
        scale: npt.NDArray[np.float32],
        discount: npt.NDArray[np.float32],
        version: int,
    ) -> None:
        """`scale` and `discount` [T] are the tasks' Q scales and discounts."""
        self.version = version
        self.model, self.layout, self.config = model, model.layout, model.config
        self.extras = plan_extras(model.config, model.layout)
        self.planner = Planner(model)
        self._scale, self._discount = torch.from_numpy(scale), torch.from_numpy(discount)

    def initial_state(self, count: int) -> PolicyState:
        """The mean plan of each copy."""
        if not self.layout.continuous_size:
            return {}
        shape = (count, self.config.planning.horizon, self.layout.continuous_size)
        return {"plan": np.zeros(shape, dtype=np.float32)}

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
        """Decides for N copies, at once where they belong to one task."""
        layout, count = self.layout, len(task_index)
        action = Action(
            continuous=np.zeros((count, layout.continuous_size), dtype=np.float32),
            discrete=np.zeros(count, dtype=np.int64),
            state={name: values.copy() for name, values in state.items()},
            extras={extra.name: extra.filled(count) for extra in self.extras},
        )
        planned = self._planned(acting, generators)
        for name, values in action.state.items():
            # the plan before, one step on
            values[:, :-1], values[:, -1] = state[name][:, 1:], 0.0
            values[ended] = 0.0
        discrete = layout.discrete_tasks[task_index]
        for kind in (False, True):
            for plan in (False, True):
                copies = np.flatnonzero((discrete == kind) & (planned == plan))
                if len(copies):
                    self._decide(action, observation, task_index, copies, kind, plan, acting, generators)
        return action

    def _planned(self, acting: Acting, generators: Sequence[np.random.Generator]) -> npt.NDArray[np.bool_]:
        """[N], which copies plan this decision."""
        settings = self.config.planning
        mode = settings.collect if acting.explore else settings.evaluate
        if not acting.plan or mode == "policy":
            return np.zeros(len(generators), dtype=bool)
        if mode == "plan":
            return np.ones(len(generators), dtype=bool)
        return np.array([generator.random() < settings.share for generator in generators])

    def _decide(
        self,
        action: Action,
        observation: Observation,
        task_index: npt.NDArray[np.int64],
        copies: npt.NDArray[np.int64],
        discrete: bool,
        plan: bool,
        acting: Acting,
        generators: Sequence[np.random.Generator],
    ) -> None:
        """Writes the decisions of `copies`, all of one kind and all planned or none."""
        tasks = task_index[copies]
        together = bool((tasks == tasks[0]).all())
        shape = (1, len(copies)) if together else (len(copies), 1)
        rows = torch.from_numpy(tasks[:1] if together else tasks)
        embedded = self.model.embed(rows)
        latent = self.model.encode(self._seen(observation, copies, rows, shape), rows, embedded)
        drawing = [generators[copy] for copy in copies]
        if discrete:
            probabilities = self._discrete(latent, rows, embedded, plan, drawing, shape)
            if plan and "planned" in action.extras:
                action.extras["planned"][copies] = 0.0
                action.extras["planned"][copies, self.layout.continuous_size :] = probabilities
            index = probabilities.argmax(1)
            if acting.explore:
                if plan:
                    # a plan may be certain; exploring keeps every legal action possible
                    legal = self.layout.legal_mask[tasks].astype(np.float32)
                    probabilities = 0.9 * probabilities + 0.1 * legal / legal.sum(1, keepdims=True)
                index = np.array(
                    [
                        draw_index(row, g)
                        for row, g in zip(probabilities.astype(np.float64), drawing, strict=True)
                    ]
                )
            action.discrete[copies] = index
            if not plan:
                action.extras["log_probability"][copies] = np.log(
                    np.maximum(probabilities[np.arange(len(index)), index], 1e-30)
                )
            return
        if plan:
            mean, std = self._continuous_plan(action, latent, rows, embedded, copies, drawing, shape)
            chosen = mean[:, 0]
            if "planned" in action.extras:
                action.extras["planned"][copies] = 0.0
                action.extras["planned"][copies, : chosen.shape[1]] = chosen
            if acting.explore:
                chosen = np.clip(chosen + std[:, 0] * _normal(drawing, chosen.shape[1:]), -1.0, 1.0)
            action.continuous[copies] = chosen
            return
        gaussian, _ = self.model.prior(latent, rows, embedded)
        if acting.explore:
            noise = torch.from_numpy(_normal(drawing, gaussian.mean.shape[-1:])).view(gaussian.mean.shape)
            drawn, log_probability = gaussian.sample(noise)
            action.extras["log_probability"][copies] = log_probability.flatten().numpy()
        else:
            drawn = gaussian.mode()
        action.continuous[copies] = drawn.flatten(0, 1).numpy()

    def _seen(
        self,
        observation: Observation,
        copies: npt.NDArray[np.int64],
        rows: torch.Tensor,
        shape: tuple[int, int],
    ) -> Seen:
        """The buckets that the tasks fill, standardised, [K_b, B, ...]."""
        found = {}
        for bucket in self.layout.buckets:
            where = torch.from_numpy(np.isin(rows.numpy(), self.layout.members(bucket)).nonzero()[0])
            if len(where):
                values = torch.from_numpy(np.ascontiguousarray(observation[bucket][copies]))
                values = values.reshape(*shape, *values.shape[1:])[where]
                if bucket == "state":
                    values = self.model.observer.standardise(values, rows[where])
                found[bucket] = (values, where)
        return found

    def _search(self, rows: torch.Tensor, embedded: torch.Tensor) -> Search:
        gates = self.model.experts.gates(rows)
        return Search(rows, embedded, gates, self._discount[rows][:, None], self._scale[rows][:, None])

    def _continuous_plan(
        self,
        action: Action,
        latent: torch.Tensor,
        rows: torch.Tensor,
        embedded: torch.Tensor,
        copies: npt.NDArray[np.int64],
        drawing: Sequence[np.random.Generator],
        shape: tuple[int, int],
    ) -> tuple[FloatRows, FloatRows]:
        """Mean and deviation [n, H, A]; keeps the mean as the copies' state."""
        settings = self.config.planning
        width = self.layout.continuous_size
        noise = _normal(drawing, (settings.iterations + 1, settings.samples, settings.horizon, width))
        warm = torch.from_numpy(action.state["plan"][copies]).view(*shape, settings.horizon, width)
        mean, std = self.planner.continuous(
            latent, self._search(rows, embedded), warm, noise.reshape(*shape, *noise.shape[1:])
        )
        action.state["plan"][copies] = mean.flatten(0, 1).numpy()
        return mean.flatten(0, 1).numpy(), std.flatten(0, 1).numpy()

    def _discrete(
        self,
        latent: torch.Tensor,
        rows: torch.Tensor,
        embedded: torch.Tensor,
        plan: bool,
        drawing: Sequence[np.random.Generator],
        shape: tuple[int, int],
    ) -> FloatRows:
        """Probabilities of the first action, [n, actions]."""
        if not plan:
            _, logits = self.model.prior(latent, rows, embedded)
            found: FloatRows = self.model.log_policy(logits, rows).exp().flatten(0, 1).numpy()
            return found
        settings = self.config.planning
        drawn = np.stack(
            [g.random((settings.iterations, settings.samples, settings.horizon), np.float32) for g in drawing]
        )
        fitted = self.planner.discrete(
            latent, self._search(rows, embedded), drawn.reshape(*shape, *drawn.shape[1:])
        )
        planned: FloatRows = fitted[:, :, 0].flatten(0, 1).numpy()
        return planned


def _normal(generators: Sequence[np.random.Generator], shape: tuple[int, ...]) -> FloatRows:
    """[n, *shape], each copy's from its own generator."""
    found = np.empty((len(generators), *shape), dtype=np.float32)
    for row, generator in zip(found, generators, strict=True):
        generator.standard_normal(out=row, dtype=np.float32)
    return found


def policy_from(snapshot: PolicySnapshot, tasks: TaskSet) -> WorldModelPolicy:
    """The policy of a snapshot; ConfigError where it does not fit the tasks."""
    config = build(WorldModelConfig, snapshot.config, "agent")
    tensors = {name: torch.as_tensor(np.array(value)) for name, value in snapshot.tensors.items()}
    scale, discount = tensors.pop("q_scale"), tensors.pop("discount")
    model = WorldModel(tasks.layout, config)
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        (first, *rest) = str(error).strip().splitlines()
        raise ConfigError(
            f"the policy does not fit {', '.join(tasks.names[:3])}. Play it on all the tasks that it was "
            f"trained on, in their order. ({(rest[0] if rest else first).strip()})"
        ) from error
    model.requires_grad_(False).eval()
    return WorldModelPolicy(model, scale.numpy(), discount.numpy(), snapshot.version)
