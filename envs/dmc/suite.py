"""The DeepMind Control suite: names, protocols and constructors; imports no simulator."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtrl.errors import UnsupportedError
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Expert, Option, Score, Task
from mtrl.tasks.catalogue import Catalogue, OptionRule, resolve_options

from ..offscreen import drawing_errors

if TYPE_CHECKING:
    from .environment import ControlEnvironment

OPTIONS = {
    # control steps that one action is held for; 2 is usual in recent model-based work
    "action_repeat": OptionRule(1, low=1, high=16),
}


@dataclass(frozen=True)
class ControlEntry:
    """What listing a DeepMind Control task needs."""

    domain: str
    """First argument of dm_control's `suite.load`."""
    task: str
    """Second argument of dm_control's `suite.load`."""
    state: int
    """Length of all observations concatenated in dm_control's order."""
    action: int
    """Number of actuators."""
    control_timestep: float
    """Seconds of simulation per control step."""
    step_limit: int
    """Control steps per episode."""


class ControlSuite:
    """DeepMind Control (Tassa et al. 2018). A control step's reward lies in [0, 1], a return in [0, 1000]."""

    name = "dmc"
    supports_starts = True
    has_experts = False
    environment_megabytes = 14.0

    def __init__(self) -> None:
        self.catalogue = Catalogue(Path(__file__).with_name("catalogue.json"), ControlEntry)

    def names(self) -> tuple[str, ...]:
        """All 28 benchmarking tasks, "dmc/domain-task"."""
        return self.catalogue.names

    def sets(self) -> Mapping[str, tuple[str, ...]]:
        """`dmc28`: every task."""
        return self.catalogue.sets

    def task(self, name: str, options: Mapping[str, Option] | None = None) -> Task:
        """One task; option: `action_repeat` (1 to 16 control steps per decision)."""
        entry = self.catalogue.entry(name)
        resolved = resolve_options(self.name, OPTIONS, options)
        repeat = int(resolved["action_repeat"])
        return Task(
            name=name,
            observation=ObservationSpec(state=entry.state),
            action=ActionSpec(continuous=entry.action),
            simulator_rate_hz=1.0 / entry.control_timestep,
            action_repeat=repeat,
            horizon_decisions=math.ceil(entry.step_limit / repeat),
            score=Score("return", low=0.0, high=1000.0),
            reward_version="dm_control-1",
            options=tuple(resolved.items()),
        )

    def environment(self, task: Task) -> ControlEnvironment:
        """A new simulator of the task."""
        entry = self.catalogue.entry(task.name)
        with warnings.catch_warnings():
            # dm_control looks for a display when imported, and warns where there is none
            warnings.simplefilter("ignore")
            with drawing_errors("dmc"):
                from .environment import ControlEnvironment
        return ControlEnvironment(task.name, entry.domain, entry.task, task.action_repeat)

    def expert(self, task: Task) -> Expert:
        """None of these tasks has a scripted expert: raises UnsupportedError."""
        raise UnsupportedError(
            f"{task.name} has no scripted expert; DeepMind Control tasks come with rewards only. "
            "Train an agent on it, or collect from metaworld or point tasks"
        )


SUITE = ControlSuite()
