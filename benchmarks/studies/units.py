"""Whether SAC learns the same from tasks whose states and rewards are in other units.

Importing this module registers each task once per unit with Gymnasium, whose seeds follow from the name: runs
of two units begin from different states, and are compared by their intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from mtrl.tasks import Score

from .record import Study

UNITS = {"plain": 1.0, "small": 1e-8, "large": 1e8}
"""Variant -> what states and rewards are multiplied by."""


class Rescaled(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment of float32 states whose states and rewards are multiplied by a number."""

    def __init__(self, env: gymnasium.Env[Any, Any], unit: float) -> None:
        super().__init__(env)
        self._unit = np.float32(unit)
        self.observation_space = spaces.Box(-np.inf, np.inf, env.observation_space.shape, np.float32)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401 - Gymnasium's own
        """As of Gymnasium."""
        observation, info = self.env.reset(**options)
        return observation * self._unit, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """As of Gymnasium."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation * self._unit, float(reward) * float(self._unit), terminated, truncated, info


def pole(unit: float) -> gymnasium.Env[Any, Any]:
    """CartPole-v1, balanced by an index."""
    return Rescaled(gymnasium.make("CartPole-v1", disable_env_checker=True), unit)


def swingup(unit: float) -> gymnasium.Env[Any, Any]:
    """cartpole-swingup of DeepMind Control, an action held for 4 steps."""
    from mtrl import registry
    from mtrl.rollout import GymnasiumView

    return Rescaled(GymnasiumView(registry.task("dmc/cartpole-swingup", {"action_repeat": 4})), unit)


TASKS: dict[str, tuple[Callable[[float], gymnasium.Env[Any, Any]], int, float]] = {
    "CartPole": (pole, 500, 500.0),
    "Swingup": (swingup, 250, 1000.0),
}
"""Name -> (environment in a unit, steps of an episode, largest return)."""


def identifier(name: str, variant: str) -> str:
    """The id that Gymnasium knows a task in the unit of a variant by."""
    return f"{name}-{variant}-v0"


def task_name(name: str, variant: str) -> str:
    """The same for mtrl."""
    return f"gym/{__name__}:{identifier(name, variant)}"


for _name, (_make, _steps, _) in TASKS.items():
    for _variant, _unit in UNITS.items():
        gymnasium.register(identifier(_name, _variant), partial(_make, _unit), max_episode_steps=_steps)

STUDY = Study(
    name="units",
    question=(
        "Does `agent=sac` learn CartPole and the swing-up of DeepMind Control as well when all states and "
        "rewards are multiplied by 1e-8 or 1e8? Returns are divided by the factor. One policy learns both "
        "tasks; what it gains on one it often lacks on the other, and seeds differ much."
    ),
    shared=(
        "agent=sac",
        "stages=[train,evaluate]",
        "tracking=files",
        "agent.replay.save=false",
        "evaluation.episodes=50",
        "online.steps=30000",
        "online.warmup=1000",
        "online.checkpoint_every=15000",
        "collection.copies=1",
        "collection.steps=10",
    ),
    variants={
        variant: (f"tasks=[{','.join(task_name(name, variant) for name in TASKS)}]",) for variant in UNITS
    },
    seeds=(1, 2, 3),
    methods={"plain": ("plain", "teacher"), "1e-8": ("small", "teacher"), "1e8": ("large", "teacher")},
    units={
        task_name(name, variant): (name, unit, Score("return", 0.0, largest))
        for name, (_, _, largest) in TASKS.items()
        for variant, unit in UNITS.items()
    },
)
