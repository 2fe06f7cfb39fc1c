"""What an environment of Gymnasium may not return, and how it may not leave."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtrl import registry
from mtrl.envs.gym import SUITE, add_environment
from mtrl.errors import TRACEBACK, EnvironmentFault
from mtrl.rollout import Acting, EpisodeJob, LocalRollouts, PolicySnapshot, RuntimeConfig
from mtrl.tasks import TaskSet

from .episodes import buffers
from .gym_environments import Counter

IDLE = np.zeros(2, dtype=np.float32)
LATE = 30
"""A step that the trial of an environment's starts does not reach."""


class Returning(Counter):
    """From some step on, returns what a function makes of a right step; the same for the reset."""

    def __init__(self, at: int, change: Callable[[Any], Any], change_reset: Callable[[Any], Any]) -> None:
        super().__init__()
        self.at, self.change, self.change_reset = at, change, change_reset

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return self.change_reset(super().reset(seed=seed))

    def step(self, action: Any) -> Any:
        returned = super().step(action)
        return self.change(returned) if self.steps >= self.at else returned


def same(returned: Any) -> Any:
    return returned


def with_field(place: int, value: object) -> Callable[[Any], Any]:
    """A step in which one of the five values is another."""
    return lambda returned: (*returned[:place], value, *returned[place + 1 :])


def leave(returned: Any) -> Any:
    sys.exit(3)


def added(at: int, change: Callable[[Any], Any] = same, change_reset: Callable[[Any], Any] = same) -> Any:
    return registry.task(
        add_environment("Returning", lambda: Returning(at, change, change_reset), horizon=60)
    )


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SUITE, "added", {})


WRONG = [
    (lambda step: (*step[:3], step[4]), "step returned 4 values; expected 5 values: observation, reward, "),
    (lambda step: step[0], "step returned one ndarray; expected 5 values"),
    (lambda step: None, "step returned one NoneType; expected 5 values"),
    (with_field(1, np.ones(1)), r"reward is float64 with shape \[1\]; expected one number"),
    (with_field(1, [1.0]), "reward is list; expected one number"),
    (with_field(1, None), "reward is NoneType; expected one number"),
    (with_field(1, "7"), "reward is str; expected one number"),
    (with_field(1, 1j), "reward is complex; expected one number"),
    (with_field(2, None), r"terminated = None \(NoneType\); expected True or False"),
    (with_field(2, 1), r"terminated = 1 \(int\); expected True or False"),
    (with_field(2, np.zeros(1, dtype=bool)), r"terminated = bool with shape \[1\]; expected True or False"),
    (with_field(3, "no"), r"truncated = 'no' \(str\); expected True or False"),
    (with_field(4, None), "info of step is a NoneType; expected a dictionary"),
    (
        with_field(4, {"is_success": 0.3}),
        r"info\['is_success'\] = 0\.3 \(float\); expected True, False, 0 or 1",
    ),
    (with_field(4, {"success": "yes"}), r"info\['success'\] = 'yes' \(str\); expected True, False, 0 or 1"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
@pytest.mark.parametrize("repeat", [1, 3])
def test_a_step_that_returns_what_it_may_not_is_a_fault_in_plain_words(
    change: Callable[[Any], Any], message: str, repeat: int
) -> None:
    added(LATE, change)
    task = registry.task("gym/Returning", {"action_repeat": repeat})
    environment = SUITE.environment(task)
    environment.reset(4, out := buffers(task))
    for _ in range(LATE // repeat - (1 if LATE % repeat == 0 else 0)):
        environment.step(IDLE, out)
    with pytest.raises(EnvironmentFault, match=message) as raised:
        environment.step(IDLE, out)
    assert raised.value.when == f"decision {LATE // repeat}, start 4"
    assert TRACEBACK not in str(raised.value)


@pytest.mark.parametrize(("change", "message"), WRONG[:1] + WRONG[8:9])
def test_the_trial_before_the_run_says_it_as_plainly(change: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(EnvironmentFault, match=message) as raised:
        SUITE.environment(added(1, change))
    assert "trial of its starts" in raised.value.when and TRACEBACK not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda returned: returned[0], "reset returned one ndarray; expected 2 values: observation, info"),
        (lambda returned: (*returned, 1), "reset returned 3 values; expected 2 values"),
        (lambda returned: (returned[0], None), "info of reset is a NoneType; expected a dictionary"),
    ],
)
def test_a_reset_returns_an_observation_and_an_info(change: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(EnvironmentFault, match=message) as raised:
        SUITE.environment(added(LATE, change_reset=change))
    assert TRACEBACK not in str(raised.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (1, 7),
        (1, np.float32(7)),
        (1, np.int64(7)),
        (1, np.array(7.0)),
        (1, True),
        (2, np.False_),
        (3, np.array(False)),
    ],
)
def test_numbers_and_flags_may_be_those_of_numpy(place: int, value: object) -> None:
    task = added(1, with_field(place, value))
    environment = SUITE.environment(task)
    environment.reset(0, out := buffers(task))
    reward, terminated, success = environment.step(IDLE, out)
    assert (type(reward), type(terminated), type(success)) == (float, bool, bool)
    assert reward == (float(value) if place == 1 else 1.0)  # type: ignore[arg-type]
    assert (terminated, environment.truncated) == (False, False)


@pytest.mark.parametrize("value", [True, np.True_, 1, 1.0, np.float32(1)])
def test_a_success_may_be_a_flag_or_exactly_0_or_1(value: object) -> None:
    task = added(1, with_field(4, {"is_success": value, "success": False}))
    environment = SUITE.environment(task)
    environment.reset(0, out := buffers(task))
    assert environment.step(IDLE, out)[2] is True


def test_an_environment_that_exits_loses_its_task_and_not_the_run() -> None:
    tasks = TaskSet([added(LATE, leave), registry.task("point/obstacle")])
    rollouts = LocalRollouts(tasks, RuntimeConfig(attempts=2))
    jobs = [EpisodeJob(k, (2,), seed=0, acting=Acting(), copies=1) for k in range(2)]
    results = list(rollouts.run(jobs, PolicySnapshot("random")))
    rollouts.close()
    assert [result.job.task_index for result in results] == [1]
    assert rollouts.quarantined[0].endswith("SystemExit: 3")


def test_an_exit_of_a_reset_or_of_a_constructor_is_a_fault_too() -> None:
    with pytest.raises(EnvironmentFault, match="SystemExit: 3"):
        SUITE.environment(added(LATE, change_reset=leave))
    made: list[Counter] = []

    def make() -> Counter:
        if made:
            sys.exit(4)
        made.append(Counter())
        return made[-1]

    task = registry.task(add_environment("Once", make, horizon=9))
    with pytest.raises(EnvironmentFault, match="SystemExit: 4") as raised:
        SUITE.environment(task)
    assert raised.value.when == "construction"


def test_a_module_or_constructor_that_raises_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_import.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "broken_make.py").write_text(
        "import gymnasium\n"
        "def make(**settings):\n"
        "    raise ValueError('model.xml is missing')\n"
        "gymnasium.register('Broken-v0', entry_point=make)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EnvironmentFault, match=r"the import of broken_import:(.|\n)*SystemExit: 3"):
        registry.task("gym/broken_import:Other-v0")
    with pytest.raises(EnvironmentFault, match=r"at construction:(.|\n)*ValueError: model\.xml is missing"):
        registry.task("gym/broken_make:Broken-v0")
