"""Stepping, SAME_STEP autoreset, resting copies, the guard at the environment's border."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from mtrl.errors import EnvironmentFault, MissingExtraError, SpaceError
from mtrl.rollout import PythonLane
from mtrl.tasks import FixedStarts, TaskSet

from ..synthetic import CounterEnvironment, CounterSuite, counter_task
from .helpers import LAYOUT, actions, lane_of


def test_begin_writes_padded_first_observations() -> None:
    lane = lane_of([[2, 5], [8]])
    lane.begin()
    np.testing.assert_array_equal(lane.observation["state"], [[0, 2, 0, 0, 0], [0, 8, 0, 0, 0]])
    assert lane.start_id.tolist() == [2, 8]
    assert lane.episode_id.tolist() == [0, 1]
    assert lane.active.all()


def test_a_step_fills_the_buffers_in_place() -> None:
    lane = lane_of([[2], [8]])
    buffers = {name: getattr(lane, name) for name in ("reward", "terminated", "truncated", "success")}
    state = lane.observation["state"]
    lane.begin()
    lane.step(*actions(lane, 0.25))
    # the task has two of the four action dimensions: 0.25 + 0.25
    np.testing.assert_array_equal(state, [[1, 2, 0.5, 0, 0], [1, 8, 0.5, 0, 0]])
    assert buffers["reward"].tolist() == [1, 1]
    assert not any(buffers[flag].any() for flag in ("terminated", "truncated", "success"))
    assert lane.final_observations == []


def test_autoreset_happens_in_the_step_that_ends_the_episode() -> None:
    lane = lane_of([[2, 5], [8]], task=counter_task(horizon=2))
    lane.begin()
    for _ in range(2):
        lane.step(*actions(lane, 0.25))
    assert lane.truncated.tolist() == [True, True]
    assert not lane.terminated.any()
    assert lane.reward.tolist() == [2, 2]
    # copy 0 already shows its next episode; copy 1 has no start left and rests where it ended
    np.testing.assert_array_equal(lane.observation["state"], [[0, 5, 0, 0, 0], [2, 8, 1, 0, 0]])
    assert [final.copy for final in lane.final_observations] == [0, 1]
    np.testing.assert_array_equal(lane.final_observations[0].observation["state"], [2, 2, 1, 0, 0])
    np.testing.assert_array_equal(lane.final_observations[1].observation["state"], [2, 8, 1, 0, 0])
    assert lane.start_id.tolist() == [5, 8]
    assert lane.episode_id.tolist() == [2, 1]
    assert lane.active.tolist() == [True, False]


def test_a_resting_copy_is_not_stepped() -> None:
    lane = lane_of([[2, 5], [8]], task=counter_task(horizon=2, success_at=2))
    lane.begin()
    for _ in range(3):
        lane.step(*actions(lane, 0.25))
    np.testing.assert_array_equal(lane.observation["state"], [[1, 5, 0.5, 0, 0], [2, 8, 1, 0, 0]])
    assert lane.reward.tolist() == [1, 0]
    assert not lane.truncated.any()
    assert not lane.success.any()
    assert lane.final_observations == []


def test_final_observations_outlive_later_steps() -> None:
    lane = lane_of([[2, 5]], task=counter_task(horizon=1))
    lane.begin()
    lane.step(*actions(lane, 0.25))
    final = lane.final_observations[0]
    lane.step(*actions(lane, 0.5))
    np.testing.assert_array_equal(final.observation["state"], [1, 2, 0.5, 0, 0])


@pytest.mark.parametrize(
    ("options", "tail", "length", "terminated", "truncated"),
    [
        ({}, None, 4, False, True),
        ({"terminate_at": 3}, None, 3, True, False),
        ({"terminate_at": 4}, None, 4, True, False),
        ({"success_at": 2}, None, 4, False, True),
        ({"success_at": 2, "end_on_success": True}, None, 2, True, False),
        ({"success_at": 2}, 0, 2, False, True),
        ({"success_at": 2}, 1, 3, False, True),
        ({"success_at": 2}, 9, 4, False, True),
        ({"success_at": 2, "terminate_at": 3}, 1, 3, True, False),
    ],
)
def test_what_ends_an_episode(
    options: Mapping[str, int], tail: int | None, length: int, terminated: bool, truncated: bool
) -> None:
    task = counter_task(horizon=4, **options)  # type: ignore[arg-type]
    lane = lane_of([[2]], task=task, success_tail=tail)
    lane.begin()
    for t in range(1, length + 1):
        assert lane.active[0], f"ended before decision {t}"
        lane.step(*actions(lane, 0.0))
        assert lane.success[0] == (t == options.get("success_at"))
    assert (bool(lane.terminated[0]), bool(lane.truncated[0])) == (terminated, truncated)
    assert not lane.active[0]


def test_a_success_counts_for_its_own_episode() -> None:
    task = counter_task(horizon=4, success_at=1, success_start=2)
    lane = lane_of([[2, 5]], task=task, success_tail=1)
    lane.begin()
    lengths, length = [], 0
    while lane.active[0]:
        lane.step(*actions(lane, 0.0))
        length += 1
        if lane.final_observations:
            lengths.append(length)
            length = 0
    assert lengths == [2, 4]


def test_pixels_and_indices() -> None:
    task = counter_task("counter/frames", horizon=2)
    layout = TaskSet([counter_task(), task]).layout
    lane = PythonLane(task, 1, layout, [CounterSuite().environment(task)], FixedStarts([[7]]))
    lane.begin()
    lane.step(np.zeros((1, 2), dtype=np.float32), np.array([2]))
    assert lane.observation["pixels"].shape == (1, 2, 3, 3)
    assert lane.observation["pixels"].dtype == np.uint8
    assert (lane.observation["pixels"][0, 0] == 1).all()
    assert (lane.observation["pixels"][0, 1] == 7).all()
    assert not lane.observation["state"].any(), "a bucket that the task does not fill holds zeros"


def test_episode_ids_are_unique_among_all_copies_of_the_task() -> None:
    seen: list[int] = []
    for first, copies in ((0, 2), (2, 1)):
        queues = [[0, 0, 0]] * copies
        lane = lane_of(queues, task=counter_task(horizon=1), first_copy=first, total_copies=3)
        lane.begin()
        for _ in range(3):
            seen += lane.episode_id.tolist()
            lane.step(*actions(lane, 0.0))
    assert sorted(seen) == list(range(9))


@pytest.mark.parametrize("field", ["state", "reward"])
def test_a_number_that_is_not_finite_is_a_fault(field: str) -> None:
    lane = lane_of([[2], [8]], task=counter_task(nan_at=2, nan_field=field))
    lane.begin()
    lane.step(*actions(lane, 0.0))
    with pytest.raises(EnvironmentFault) as caught:
        lane.step(*actions(lane, 0.0))
    assert caught.value.task == "counter/short"
    assert caught.value.when == "step, decision 2 of copy 0, start 2"
    assert caught.value.detail == f"not finite: '{field}'"


def test_large_numbers_are_no_fault() -> None:
    class Loud(CounterEnvironment):
        def reset(self, start: int, out: Mapping[str, np.ndarray]) -> None:
            out["state"][:] = 3e38

    lane = PythonLane(counter_task(), 0, LAYOUT, [Loud(counter_task(), CounterSuite())], FixedStarts([[2]]))
    lane.begin()
    assert lane.active[0]


def test_an_exception_in_an_environment_is_a_fault_with_its_traceback() -> None:
    lane = lane_of([[2], [8]], task=counter_task(fail_at=3))
    lane.begin()
    for _ in range(2):
        lane.step(*actions(lane, 0.0))
    with pytest.raises(EnvironmentFault) as caught:
        lane.step(*actions(lane, 0.0))
    assert caught.value.when == "decision 3 of copy 0, start 2"
    assert "RuntimeError: the arm fell off" in caught.value.detail
    assert "synthetic.py" in caught.value.detail


def test_an_exception_in_reset_is_a_fault() -> None:
    with pytest.raises(EnvironmentFault, match=r"reset of copy 0 to start 2(?s:.*)the arm fell off"):
        lane_of([[2]], task=counter_task(fail_at=0)).begin()


class Clumsy(CounterEnvironment):
    """Breaks the contract as `mistake` says."""

    mistake = ""

    def step(self, action: np.ndarray | int, out: Mapping[str, np.ndarray]) -> tuple[float, bool, bool]:
        if self.mistake == "returns what Gymnasium returns":
            return 0.0, False, False, False, {}  # type: ignore[return-value]
        if self.mistake == "returns nothing":
            return None  # type: ignore[return-value]
        if self.mistake == "replaces its buffer":
            out["state"] = np.ones(3)  # type: ignore[index]
        if self.mistake == "lacks a package":
            raise MissingExtraError("the arm", "arm", "arms")
        if self.mistake == "writes into its action":
            action += 1  # type: ignore[operator]
        return super().step(action, out)


def clumsy(mistake: str) -> PythonLane:
    environment = Clumsy(counter_task(), CounterSuite())
    environment.mistake = mistake
    lane = PythonLane(counter_task(), 0, LAYOUT, [environment], FixedStarts([[2]]))
    lane.begin()
    return lane


@pytest.mark.parametrize(
    "mistake", ["returns what Gymnasium returns", "returns nothing", "replaces its buffer"]
)
def test_a_broken_contract_is_a_fault(mistake: str) -> None:
    lane = clumsy(mistake)
    with pytest.raises(EnvironmentFault, match="decision 1 of copy 0"):
        lane.step(*actions(lane, 0.0))


def test_an_error_that_says_what_to_do_is_passed_on() -> None:
    lane = clumsy("lacks a package")
    with pytest.raises(MissingExtraError):
        lane.step(*actions(lane, 0.0))


def test_an_environment_may_write_into_its_action() -> None:
    lane = clumsy("writes into its action")
    continuous, discrete = actions(lane, 0.0)
    lane.step(continuous, discrete)
    assert not continuous.any()
    saved = lane.state_dict()
    np.testing.assert_array_equal(saved["actions"][0], [[0.0, 0.0]])  # type: ignore[index]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_policy_that_diverged_is_not_blamed_on_the_environment(value: float) -> None:
    lane = lane_of([[2]])
    lane.begin()
    with pytest.raises(SpaceError, match=r"counter/short: the policy's action must be 2 finite numbers"):
        lane.step(*actions(lane, value))


@pytest.mark.parametrize(
    ("index", "came"), [(-1, "-1"), (3, "3"), (1.0, "1.0 of float64"), (np.nan, "nan of float64")]
)
def test_an_illegal_index_is_the_policy_s_mistake(index: float, came: str) -> None:
    task = counter_task("counter/frames")
    environments = [CounterSuite().environment(task)]
    lane = PythonLane(task, 0, TaskSet([task]).layout, environments, FixedStarts([[2]]))
    lane.begin()
    with pytest.raises(SpaceError, match=f"an index from 0 to 2; got {came}$"):
        lane.step(np.zeros((1, 0), dtype=np.float32), np.array([index]))


def test_one_environment_that_does_not_close_keeps_no_other_open() -> None:
    class Stuck(CounterEnvironment):
        def close(self) -> None:
            raise RuntimeError("the window hangs")

    suite, task = CounterSuite(), counter_task()
    environments = [Stuck(task, suite), suite.environment(task)]
    PythonLane(task, 0, LAYOUT, environments, FixedStarts([[2], [5]])).close()
    assert environments[1].closed
