"""Carrying out planned chunks: receding horizon, adaptive chunking, and plans that come later."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.rollout import (
    Acting,
    ChunkPolicy,
    ChunkSampler,
    ChunkSpec,
    Execution,
    FunctionSampler,
    ResumingSampler,
    generator_for,
)

H = 8
Floats = npt.NDArray[np.float32]


class Clock:
    """A sampler that plans 0.01 x the decision that each action is meant for, as its state tells it, in one
    dimension; in the other the number of the plan.
    """

    spec = ChunkSpec(1, 1, H, 2)

    def __init__(self) -> None:
        self.plans = 0

    def sample(self, states: Floats, task: npt.NDArray[np.int64], z: Floats) -> Floats:
        """Counts the calls."""
        self.plans += 1
        chunk = np.zeros((len(states), H, 2), dtype=np.float32)
        chunk[:, :, 0] = (states[:, -1] + np.arange(H)) / 100
        chunk[:, :, 1] = self.plans / 100
        return chunk


def played(sampler: ChunkSampler, execution: Execution, steps: int, ends: Sequence[int] = (0,)) -> Floats:
    """Actions [steps, 2] of one copy whose state is the decision's number; an episode begins at each of
    `ends`.
    """
    policy, made = ChunkPolicy(sampler, execution), []
    state = policy.initial_state(1)
    for now in range(steps):
        before = {name: values.copy() for name, values in state.items()}
        action = policy.act(
            {"state": np.array([[now]], dtype=np.float32)},
            np.zeros(1, dtype=np.int64),
            state,
            np.array([now in ends]),
            acting=Acting(),
            generators=[generator_for(0, "made/clock", 0)],
        )
        for name, values in before.items():
            np.testing.assert_array_equal(values, state[name], "the caller's state stays what it was")
        state = action.state
        made.append(action.continuous[0])
    return np.round(100 * np.stack(made)).astype(np.float32)


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_every_action_is_the_one_meant_for_its_decision(delay: int) -> None:
    # 14 is in the middle of a plan: what was coming then is forgotten
    found = played(Clock(), Execution(steps=3, delay=delay), 30, ends=(0, 14))
    np.testing.assert_array_equal(found[:, 0], np.arange(30))


@pytest.mark.parametrize(
    ("delay", "plans"),
    [
        # planned at 0, 3, 6, 9
        (0, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4]),
        # asked for at 3, 6, 9, there 2 decisions later
        (2, [1, 1, 1, 1, 1, 2, 2, 2, 3, 3]),
        (3, [1, 1, 1, 1, 1, 1, 2, 2, 2, 3]),
    ],
)
def test_a_plan_that_takes_time_is_carried_out_from_where_time_is(delay: int, plans: list[int]) -> None:
    execution = Execution(steps=3, delay=delay, blend="none")
    assert played(Clock(), execution, 10)[:, 1].tolist() == plans


def test_the_first_plan_of_an_episode_is_waited_for() -> None:
    found = played(Clock(), Execution(steps=4, delay=4, blend="none"), 12, ends=(0, 5))
    # the second plan is asked for at 4; the third begins the second episode at 5
    assert found[:, 1].tolist() == [1, 1, 1, 1, 1, 3, 3, 3, 3, 3, 3, 3]


def test_the_pull_of_real_time_chunking_by_hand() -> None:
    pull = Execution(steps=3, delay=2).pull(H)
    # u = (d - 1 - i) / (H - s - d + 1) + 1 = 3/4, 1/2, 1/4 at i = 2, 3, 4; u (e^u - 1) / (e - 1)
    np.testing.assert_allclose(pull, [1, 1, 0.487560, 0.188770, 0.041325, 0, 0, 0], atol=1e-5)
    np.testing.assert_array_equal(Execution(steps=4, delay=4).pull(H), [1, 1, 1, 1, 0, 0, 0, 0])


def test_plans_are_bound_to_what_is_carried_out_meanwhile() -> None:
    naive, soft = (played(Clock(), Execution(steps=3, delay=2, blend=blend), 8) for blend in ("none", "soft"))
    # plan 2 begins at decision 5, at its third action, which is bound by 0.49 to plan 1
    assert naive[5, 1] == 2 and soft[5, 1] == np.round(2 - 0.487560)


def varied(direction: Callable[[int], float]) -> FunctionSampler:
    """Plans of unit actions, whose direction is a function of the decision's number."""

    def sample(states: Floats, task: npt.NDArray[np.int64], z: Floats) -> Floats:
        angle = direction(int(states[0, -1, 0]))
        return np.tile(np.array([np.cos(angle), np.sin(angle)], dtype=np.float32), (1, H, 1))

    return FunctionSampler(ChunkSpec(1, 1, H, 2), sample)


def test_adaptive_chunking_keeps_a_plan_while_new_ones_begin_alike() -> None:
    # new plans turn by 0.1 a decision; cos(0.2) = 0.980, cos(0.3) = 0.955
    found = played(varied(lambda now: 0.1 * now), Execution(adaptive=0.97), 8)
    expected = [0, 0, 0, 30, 30, 30, 60, 60]
    np.testing.assert_array_equal(found[:, 0], np.round(100 * np.cos(np.array(expected) / 100)))
    # of a plan that is kept for longer than a chunk, the actions that were appended are carried out
    found = played(varied(lambda now: 0.0), Execution(adaptive=0.97), 20)
    np.testing.assert_array_equal(found, np.tile([100, 0], (20, 1)))


def test_adaptive_chunking_begins_anew_with_an_episode() -> None:
    found = played(varied(lambda now: 0.1 * (now >= 2)), Execution(adaptive=0.97), 6, ends=(0, 4))
    np.testing.assert_array_equal(found[:, 1], [0, 0, 0, 0, 10, 10])


class Resuming:
    """Plans of 0, 1, ...; begun around another plan, that plan and one half."""

    spec, resumes = ChunkSpec(1, 1, H, 2), True

    def sample(self, states: Floats, task: npt.NDArray[np.int64], z: Floats) -> Floats:
        rows = np.arange(H, dtype=np.float32)[None, :, None] / 100
        return np.tile(rows, (len(states), 1, 2))

    def resume(self, states: Floats, task: npt.NDArray[np.int64], z: Floats, ahead: Floats) -> Floats:
        return ahead + np.float32(0.5)


def test_plans_begin_around_what_is_left_of_the_one_before() -> None:
    assert isinstance(Resuming(), ResumingSampler)
    found = played(Resuming(), Execution(steps=3), 11, ends=(0, 8))
    # 3 and on are left of the first plan; its last row stands where it ends
    np.testing.assert_array_equal(found[:8, 0], [0, 1, 2, 53, 54, 55, 100, 100])
    np.testing.assert_array_equal(found[8:, 0], [0, 1, 2])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"steps": 3, "delay": 4}, "execution.delay=4 is out of range; expected at most steps=3"),
        ({"delay": 2, "adaptive": 0.9}, "set one of them to 0"),
        ({"adaptive": 1.5}, "execution.adaptive=1.5"),
        ({"blend": "hard"}, "execution.blend is 'soft' or 'none'"),
    ],
)
def test_what_cannot_be_carried_out_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises((ConfigError, OutOfRangeError), match=said):
        Execution(**values)  # type: ignore[arg-type]


def test_a_plan_that_ends_before_the_next_is_there_is_refused() -> None:
    with pytest.raises(OutOfRangeError, match=r"network.chunk=8, less delay=4"):
        ChunkPolicy(Clock(), Execution(steps=5, delay=4))
