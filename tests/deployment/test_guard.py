"""The guard's order, states and limits; above all that nothing gets past it."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtrl.deployment import Guard, GuardConfig, GuardFlag, GuardState
from mtrl.deployment.guard.guard import BREACHES
from mtrl.errors import ConfigError, GuardError

GOOD = np.zeros(3)


def config(**changes: object) -> GuardConfig:
    base = GuardConfig(action_size=2, hold=("zero", "last"), rate_limit=0.5, hold_budget=3)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def armed(**changes: object) -> Guard:
    guard = Guard(config(**changes))
    guard.arm(0.0)
    return guard


def tick(
    guard: Guard,
    action: list[float],
    *,
    observation: np.ndarray = GOOD,
    age: float = 0.001,
    took: float = 0.0,
    waited: float = 0.001,
) -> tuple[list[float], GuardFlag, GuardState]:
    guarded = guard.check(observation, 10.0 - age, np.array(action), took, 10.0, 10.0 - waited)
    return guarded.action.tolist(), guarded.flags, guarded.state


def test_a_clean_action_passes_unchanged_and_the_guard_runs() -> None:
    assert tick(armed(), [0.25, -0.5]) == ([0.25, -0.5], GuardFlag.NONE, GuardState.RUN)


def test_an_action_beyond_the_limits_is_clipped_then_rate_limited() -> None:
    guard = armed()
    # from 0 towards clip(3) = 1 by at most 0.5 a tick
    assert tick(guard, [3.0, 0.0]) == ([0.5, 0.0], GuardFlag.CLIPPED | GuardFlag.RATE_LIMITED, GuardState.RUN)
    assert tick(guard, [3.0, 0.0]) == ([1.0, 0.0], GuardFlag.CLIPPED, GuardState.RUN)
    assert tick(guard, [-0.2, 0.0]) == ([0.5, 0.0], GuardFlag.RATE_LIMITED, GuardState.RUN)


def test_acceleration_is_limited_when_asked_for() -> None:
    guard = armed(acceleration_limit=0.2)
    # the change may grow by 0.2 a tick: 0.2, then 0.4, then the rate limit of 0.5 rules
    first = [tick(guard, [1.0, 0.0])[0][0] for _ in range(3)]
    assert first == pytest.approx([0.2, 0.6, 1.0])
    flags = tick(armed(acceleration_limit=0.2), [1.0, 0.0])[1]
    assert flags == GuardFlag.RATE_LIMITED | GuardFlag.ACCELERATION_LIMITED


def test_holding_stops_velocities_and_keeps_the_gripper() -> None:
    guard = armed()
    tick(guard, [0.4, 0.3])
    action, flags, state = tick(guard, [0.4, -0.1], age=0.05)
    assert (action, flags, state) == ([0.0, 0.3], GuardFlag.STALE_OBSERVATION, GuardState.HOLD)


def test_holding_obeys_the_rate_limit() -> None:
    guard = armed()
    tick(guard, [0.5, 0.0])
    tick(guard, [0.9, 0.0])
    assert tick(guard, [0.9, 0.0], age=1.0)[0] == pytest.approx([0.4, 0.0])
    assert tick(guard, [0.9, 0.0], age=1.0)[0] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        ({"age": 0.041}, GuardFlag.STALE_OBSERVATION),
        ({"age": -0.001}, GuardFlag.STALE_OBSERVATION),
        ({"age": float("nan")}, GuardFlag.STALE_OBSERVATION),
        ({"observation": np.array([0, np.nan, 0])}, GuardFlag.OBSERVATION_NOT_FINITE),
        ({"observation": np.array([0, -np.inf, 0])}, GuardFlag.OBSERVATION_NOT_FINITE),
        ({"observation": np.array([0, -1001.0, 0])}, GuardFlag.OBSERVATION_OUT_OF_RANGE),
        ({"waited": 0.061}, GuardFlag.STALE_PROPOSAL),
        ({"waited": -0.001}, GuardFlag.STALE_PROPOSAL),
        ({"waited": float("nan")}, GuardFlag.STALE_PROPOSAL),
        ({"took": 0.011}, GuardFlag.LATE_INFERENCE),
        ({"took": float("nan")}, GuardFlag.LATE_INFERENCE),
    ],
)
def test_each_violation_holds_and_the_next_clean_tick_runs_again(arguments: dict, flag: GuardFlag) -> None:
    guard = armed()
    assert tick(guard, [0.1, 0.1], **arguments)[1:] == (flag, GuardState.HOLD)
    assert tick(guard, [0.1, 0.1])[1:] == (GuardFlag.NONE, GuardState.RUN)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_action_latches_the_emergency_stop(bad: float) -> None:
    guard = armed()
    tick(guard, [0.4, 0.3])
    assert tick(guard, [bad, 0.0]) == ([0.0, 0.3], GuardFlag.ACTION_NOT_FINITE, GuardState.ESTOP)
    for _ in range(10):
        assert tick(guard, [0.4, 0.0])[0::2] == ([0.0, 0.3], GuardState.ESTOP)
    assert guard.transitions[-1].cause == "ACTION_NOT_FINITE"


@pytest.mark.parametrize("breach", BREACHES)
def test_what_a_robot_measures_beyond_its_limits_latches_the_emergency_stop(breach: GuardFlag) -> None:
    guard = armed()
    tick(guard, [0.4, 0.3])
    guarded = guard.check(GOOD, 9.999, np.array([0.4, 0.0]), 0.0, 10.0, 9.999, int(breach))
    assert (guarded.action.tolist(), guarded.flags, guarded.state) == ([0.0, 0.3], breach, GuardState.ESTOP)
    assert tick(guard, [0.4, 0.0])[2] is GuardState.ESTOP
    assert guard.transitions[-1].cause == breach.name


def test_a_bad_observation_is_blamed_before_the_action_that_came_of_it() -> None:
    _, flags, state = tick(armed(), [np.nan, 0.0], observation=np.full(3, np.nan))
    assert (flags, state) == (GuardFlag.OBSERVATION_NOT_FINITE, GuardState.HOLD)


def test_holding_longer_than_the_budget_latches_the_emergency_stop() -> None:
    guard = armed()
    states = [tick(guard, [0.0, 0.0], age=1.0)[2] for _ in range(4)]
    assert states == [GuardState.HOLD] * 3 + [GuardState.ESTOP]
    assert tick(guard, [0.0, 0.0])[2] is GuardState.ESTOP
    assert guard.transitions[-1].cause == "held for more than 3 ticks: STALE_OBSERVATION"


def test_a_clean_tick_refills_the_budget() -> None:
    guard = armed()
    for _ in range(5):
        for _ in range(3):
            assert tick(guard, [0.0, 0.0], age=1.0)[2] is GuardState.HOLD
        assert tick(guard, [0.0, 0.0])[2] is GuardState.RUN


def test_commands_fade_in_over_the_soft_start() -> None:
    guard = armed(soft_start_ticks=3, rate_limit=2.0)
    actions = [tick(guard, [0.8, 0.0]) for _ in range(4)]
    assert [action[0] for action, _, _ in actions] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert [state for _, _, state in actions] == [GuardState.SOFT_START] * 3 + [GuardState.RUN]


def test_an_unarmed_guard_lets_nothing_through() -> None:
    guard = Guard(config())
    assert tick(guard, [0.4, 0.4]) == ([0.0, 0.0], GuardFlag.NOT_ARMED, GuardState.INIT)


def test_every_transition_is_kept_with_its_cause() -> None:
    guard = armed()
    tick(guard, [0.0, 0.0])
    tick(guard, [0.0, 0.0], age=1.0)
    tick(guard, [0.0, 0.0])
    walked = [(change.before.name, change.after.name, change.cause) for change in guard.transitions]
    assert walked == [
        ("INIT", "VERIFIED", "artefact verified"),
        ("VERIFIED", "CONNECTED", "first observation of the episode"),
        ("CONNECTED", "ARMED", "deploy was asked for"),
        ("ARMED", "RUN", "clean tick"),
        ("RUN", "HOLD", "STALE_OBSERVATION"),
        ("HOLD", "RUN", "clean tick"),
    ]
    with pytest.raises(GuardError, match="only a guard in INIT"):
        guard.arm(0.0)


def test_the_docstring_lists_every_limit_with_the_method_that_applies_it() -> None:
    assert Guard.__doc__ is not None
    listed = re.findall(r"`(\w+)`", Guard.__doc__)
    limits = {field.name for field in dataclasses.fields(GuardConfig)} - {"action_size", "hold"}
    assert limits <= set(listed)
    assert all(hasattr(Guard, name) for name in listed if name not in limits and name != "GuardConfig")


@pytest.mark.parametrize(
    "changes",
    [{"hold": ("zero",)}, {"hold": ("zero", "stay")}, {"rate_limit": 0.0}, {"action_limit": np.nan}],
)
def test_a_configuration_that_would_not_protect_is_refused(changes: dict) -> None:
    with pytest.raises(ConfigError):
        config(**changes)


def choosing(**changes: object) -> Guard:
    """Of a task with three choices."""
    free = {"hold": ("zero",), "action_size": 1, "choices": 3, "action_limit": 3.0, "rate_limit": 3.0}
    return armed(**(free | changes))


def test_a_choice_passes_as_it_is() -> None:
    guard = choosing()
    for choice in (2.0, 0.0, 1.0, 2.0):
        assert tick(guard, [choice]) == ([choice], GuardFlag.NONE, GuardState.RUN)


@pytest.mark.parametrize(("hold", "held"), [("zero", 0.0), ("last", 2.0)])
def test_holding_takes_the_first_choice_or_repeats_the_last(hold: str, held: float) -> None:
    guard = choosing(hold=(hold,))
    tick(guard, [2.0])
    assert tick(guard, [1.0], age=1.0) == ([held], GuardFlag.STALE_OBSERVATION, GuardState.HOLD)
    assert tick(guard, [1.0]) == ([1.0], GuardFlag.NONE, GuardState.RUN)


@pytest.mark.parametrize(
    ("bad", "flag"),
    [
        (np.nan, GuardFlag.ACTION_NOT_FINITE),
        (3.0, GuardFlag.NO_SUCH_CHOICE),
        (-1.0, GuardFlag.NO_SUCH_CHOICE),
        (0.5, GuardFlag.NO_SUCH_CHOICE),
    ],
)
def test_what_is_no_choice_latches_the_emergency_stop(bad: float, flag: GuardFlag) -> None:
    guard = choosing()
    tick(guard, [2.0])
    assert tick(guard, [bad]) == ([0.0], flag, GuardState.ESTOP)
    assert tick(guard, [1.0]) == ([0.0], GuardFlag.NONE, GuardState.ESTOP)
    assert guard.transitions[-1].cause == flag.name


@given(
    ticks=st.lists(st.tuples(st.floats(), st.floats()), min_size=1, max_size=30), choices=st.integers(1, 5)
)
@settings(max_examples=100, deadline=None)
def test_every_command_of_a_discrete_task_is_a_choice(ticks: list, choices: int) -> None:
    guard = choosing(choices=choices, action_limit=5.0, rate_limit=5.0)
    for proposal, age in ticks:
        (command,), _, _ = tick(guard, [proposal], age=age)
        assert command in range(choices)


@pytest.mark.parametrize(
    "changes",
    [{"rate_limit": 1.0}, {"action_limit": 1.0}, {"acceleration_limit": 0.5}, {"soft_start_ticks": 1}],
)
def test_a_limit_that_would_change_a_choice_is_refused(changes: dict) -> None:
    with pytest.raises(ConfigError, match="a choice of 3 is taken as it is"):
        choosing(**changes)


def assert_harmless(guard: Guard, actions: np.ndarray, ages: np.ndarray, observations: np.ndarray) -> None:
    """No command leaves the limits or jumps, whatever is proposed."""
    limits = guard.config
    previous = np.zeros(limits.action_size)
    for action, age, observation in zip(actions, ages, observations, strict=True):
        command = guard.check(observation, 10.0 - age, action, 0.0, 10.0, 9.999).action
        assert np.isfinite(command).all()
        assert np.abs(command).max() <= limits.action_limit
        assert np.abs(command - previous).max() <= limits.rate_limit * (1 + 1e-12)
        previous[:] = command


anything = st.floats(allow_nan=True, allow_infinity=True)
limit = st.floats(min_value=1e-3, max_value=2.0)


@given(
    ticks=st.lists(st.tuples(anything, anything, anything, anything), min_size=1, max_size=40),
    action_limit=limit,
    rate_limit=limit,
    acceleration_limit=st.one_of(st.just(0.0), limit),
    soft_start=st.integers(0, 5),
)
@settings(max_examples=150)
def test_no_command_leaves_the_limits_or_jumps(
    ticks: list, action_limit: float, rate_limit: float, acceleration_limit: float, soft_start: int
) -> None:
    guard = armed(
        action_limit=action_limit,
        rate_limit=rate_limit,
        acceleration_limit=acceleration_limit,
        soft_start_ticks=soft_start,
    )
    rows = np.array(ticks)
    assert_harmless(guard, rows[:, :2], rows[:, 2], rows[:, 3:])


def test_no_command_leaves_the_limits_in_a_hundred_thousand_adversarial_ticks() -> None:
    generator = np.random.default_rng(7)
    per_run, runs = 1000, 100
    for run in range(runs):
        actions = generator.standard_normal((per_run, 2)) * 10.0 ** generator.integers(-3, 4, (per_run, 1))
        # bang-bang between the extremes is what a rate limit is for
        actions[::3] = generator.choice([-1e300, 1e300], (len(actions[::3]), 2))
        ages = np.where(generator.random(per_run) < 0.02, 1.0, 0.001)
        observations = generator.standard_normal((per_run, 1))
        if run % 2:
            actions[generator.integers(0, per_run)] = generator.choice([np.nan, np.inf, -np.inf])
            observations[generator.integers(0, per_run, 5)] = np.nan
        rate = float(generator.uniform(0.01, 2.0))
        acceleration = float(generator.choice([0.0, 0.05]))
        assert_harmless(armed(rate_limit=rate, acceleration_limit=acceleration), actions, ages, observations)
