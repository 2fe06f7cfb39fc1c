"""The Meta-World suite: names, protocols and constructors; imports no simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtrl.errors import OutOfRangeError
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Catalogue, CatalogueSuite, Option, OptionRule, Score, Task, require_vector_backend

from ..envpool import EXTRAS
from ..offscreen import drawing_errors

if TYPE_CHECKING:
    from .environment import MetaworldEnvironment
    from .expert import MetaworldExpert
    from .pool import MetaworldPool

OPTIONS = {
    # metaworld's reward_function_version; "v2" is what the published MT10 and MT50 results use
    "reward_version": OptionRule("v2", choices=("v2", "v1")),
    # decisions per episode; the simulator refuses to go past 500
    "horizon": OptionRule(500, low=1, high=500),
    # control steps that one action is held for; the reward is their mean, so that it stays in 0 to 10
    "action_repeat": OptionRule(1, low=1, high=16),
}

STEP_LIMIT = 500
"""Control steps after which the simulator refuses to go on."""


@dataclass(frozen=True)
class MetaworldEntry:
    """Data from which a Meta-World task is listed."""

    state: int
    """Length of the observation: 18 now, 18 one step ago, 3 goal."""
    action: int
    """Hand displacement in x, y, z and gripper effort."""


class MetaworldSuite(CatalogueSuite[MetaworldEntry]):
    """Meta-World (Yu et al. 2019; McLean et al. 2025 for v3). Success is the official signal.

    All 50 tasks in the official order of MT50, and the official sets mt10, mt25 and mt50.
    """

    name = "metaworld"
    catalogue = Catalogue.read(Path(__file__).with_name("catalogue.json"), MetaworldEntry)
    options = OPTIONS
    has_experts = True
    backend_extras = EXTRAS
    environment_megabytes = 33.0

    def task(self, name: str, options: Mapping[str, Option] | None = None) -> Task:
        """One task; options: `reward_version` ("v2" or "v1"), `horizon` (1 to 500 decisions) and
        `action_repeat` (1 to 16 control steps per decision). Raises OutOfRangeError when an episode would
        exceed the simulator's 500 control steps.
        """
        entry, resolved = self.described(name, options)
        repeat, horizon = int(resolved["action_repeat"]), int(resolved["horizon"])
        if repeat == 1:
            # the official protocol: the option is left out, so that the hash is that of earlier versions
            del resolved["action_repeat"]
        elif "horizon" not in (options or {}):
            resolved["horizon"] = horizon = STEP_LIMIT // repeat
        if repeat * horizon > STEP_LIMIT:
            raise OutOfRangeError(
                "horizon", horizon, f"1 to {STEP_LIMIT // repeat} decisions of {repeat} control steps"
            )
        return Task(
            name=name,
            observation=ObservationSpec(state=entry.state),
            action=ActionSpec(continuous=entry.action),
            simulator_rate_hz=80.0,
            action_repeat=repeat,
            horizon_decisions=horizon,
            score=Score("success"),
            reward_version=f"metaworld-{resolved['reward_version']}",
            options=tuple(resolved.items()),
        )

    def environment(self, task: Task) -> MetaworldEnvironment:
        """A new simulator of the task; takes about 0.3 s."""
        with drawing_errors("metaworld"):
            from .environment import MetaworldEnvironment

        return MetaworldEnvironment(task)

    def vector_backends(self, task: Task) -> tuple[str, ...]:
        """EnvPool has reward version 2 only, and no action repeat."""
        official = task.option("reward_version", "v2") == "v2" and task.action_repeat == 1
        return ("envpool",) if official else ()

    def vector_environment(self, task: Task, copies: int, backend: str, seed: int) -> MetaworldPool:
        """A pool of the task; raises MissingExtraError where EnvPool is not installed."""
        require_vector_backend(self, task, backend, "EnvPool has reward version 2 and action repeat 1 alone")
        from .pool import MetaworldPool

        return MetaworldPool(task, copies, seed)

    def expert(self, task: Task) -> MetaworldExpert:
        """The official scripted policy of the task."""
        with drawing_errors("metaworld"):
            from .expert import MetaworldExpert

        return MetaworldExpert(task.short_name)


SUITE = MetaworldSuite()
