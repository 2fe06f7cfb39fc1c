"""The loop of a robot under a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from mtrl.deployment import RobotConfig
from mtrl.deployment.realtime.records import CommandField, ObservationField
from mtrl.deployment.realtime.shared_memory import Seqlock, SharedBlock
from mtrl.deployment.robots.robot import RobotLoop
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Environment, Score, Task

from .bench_suite import HORIZON, RATE_HZ, SUITE

PERIOD = 1 / RATE_HZ


class Bench:
    """A robot, its wire, and a policy that is called whenever the robot sleeps."""

    def __init__(
        self,
        config: RobotConfig,
        options: dict | None = None,
        *,
        task: Task | None = None,
        environment: Environment | None = None,
    ) -> None:
        self.now = 50.0
        task = task or SUITE.task("bench/point", options)
        widths = (task.observation.state or 0, task.action.continuous or 1)
        self.observations = Seqlock(SharedBlock.create(Seqlock.words(len(ObservationField) + widths[0])))
        self.commands = Seqlock(SharedBlock.create(Seqlock.words(len(CommandField) + widths[1])))
        self.policy: Callable[[np.ndarray], np.ndarray | None] = lambda record: None
        self.overshoot = 0.0
        self.seen: list[np.ndarray] = []
        self.stamps: list[float] = []
        self.robot = RobotLoop(
            environment or SUITE.environment(task),
            task,
            config,
            self.observations,
            self.commands,
            lambda: self.now,
            self.sleep,
        )
        self.robot.reset(4, 1)

    def sleep(self, seconds: float) -> None:
        record = np.zeros(self.observations.width)
        stamp = self.observations.read(record)
        if stamp is not None and (not self.stamps or stamp > self.stamps[-1]):
            self.seen.append(record)
            self.stamps.append(stamp)
            action = self.policy(record)
            if action is not None:
                answered = record[[ObservationField.EPISODE, ObservationField.TICK]]
                self.commands.write(self.now, np.array([*answered, *action]))
        self.now += seconds + self.overshoot

    def run(self) -> np.ndarray:
        self.robot.run(lambda: None)
        last = np.zeros(self.observations.width)
        self.observations.read(last)
        return last


def steer(record: np.ndarray) -> np.ndarray:
    state = record[len(ObservationField) :]
    return np.clip(10 * (state[2:] - state[:2]), -1, 1)


def lock_step(start: int) -> tuple[int, float, np.ndarray]:
    """The same policy and task without any clock: steps to first success, return, last state."""
    environment = SUITE.environment(SUITE.task("bench/point"))
    out = {"state": np.zeros(4, dtype=np.float32)}
    environment.reset(start, out)
    total = 0.0
    for step in range(1, HORIZON + 1):
        action = np.clip(10 * (out["state"][2:].astype(float) - out["state"][:2].astype(float)), -1, 1)
        reward, _, success = environment.step(action.astype(np.float32), out)
        total += reward
        if success:
            return step, total, out["state"].copy()
    raise AssertionError("the policy should succeed")


def test_answered_in_time_real_time_equals_lock_step() -> None:
    steps, total, state = lock_step(4)
    bench = Bench(RobotConfig(settle_decisions=0))
    bench.policy = steer
    last = bench.run()
    assert (
        last[ObservationField.SUCCEEDED]
        == last[ObservationField.SUCCESS]
        == last[ObservationField.ENDED]
        == 1
    )
    assert last[ObservationField.TICK] == steps
    assert last[ObservationField.RETURN] == pytest.approx(total)
    assert last[len(ObservationField) :].astype(np.float32).tolist() == state.tolist()
    assert last[ObservationField.TIMEOUTS] == last[ObservationField.SLIPS] == 0


class Recorder:
    """Keeps what it is told to do."""

    def __init__(self) -> None:
        self.actions: list[float] = []

    def reset(self, start: int, out: dict) -> None:
        out["state"][:] = 0.0

    def step(self, action: np.ndarray, out: dict) -> tuple[float, bool, bool]:
        self.actions.append(round(float(action[0]) * 100))
        return 0.0, False, False

    def render(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("periods", "late"), [(0.0, 0), (0.9, 0), (1.1, 1), (3.5, 3)])
def test_commands_arrive_late_by_the_delay(periods: float, late: int) -> None:
    """A command is sent at once after its observation and acts at the first tick after it has arrived."""
    recorder = Recorder()
    config = RobotConfig(delay_ms=1000 * PERIOD * periods)
    task = SUITE.task("bench/point", {"horizon": 12})
    bench = Bench(config, task=task, environment=recorder)
    bench.policy = lambda record: np.array([record[ObservationField.TICK] / 100, 0.0])
    bench.run()
    # tick n carries out the answer to observation n - 1 - late
    assert recorder.actions == [max(0, tick - late) for tick in range(12)]


def test_it_settles_after_the_first_success() -> None:
    steps, _, _ = lock_step(4)
    bench = Bench(RobotConfig(settle_decisions=6))
    bench.policy = steer
    assert bench.run()[ObservationField.TICK] == steps + 6


def test_it_ticks_at_the_tasks_rate_whatever_the_policy_does() -> None:
    bench = Bench(RobotConfig())
    last = bench.run()
    assert last[ObservationField.TICK] == HORIZON
    assert np.diff(bench.stamps) == pytest.approx(PERIOD)
    assert last[ObservationField.TIMEOUTS] == HORIZON
    assert last[len(ObservationField) :].tolist() == bench.seen[0][len(ObservationField) :].tolist()


def test_it_repeats_the_last_command_until_its_own_timeout() -> None:
    bench = Bench(RobotConfig(command_timeout_ms=105.0, hold_last=("bench:1",)))
    bench.policy = lambda record: np.array([0.5, 0.25]) if record[ObservationField.TICK] == 0 else None
    last = bench.run()
    # the command is 1 to 6 periods of 20 ms old at ticks 1 to 6: one period and the timeout make 125 ms
    assert last[ObservationField.TIMEOUTS] == HORIZON - 6
    moved = last[len(ObservationField) :] - bench.seen[0][len(ObservationField) :]
    assert moved[:2] == pytest.approx([6 * 0.05, HORIZON * 0.025], abs=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_it_does_not_trust_a_command_that_is_not_finite(bad: float) -> None:
    bench = Bench(RobotConfig())
    bench.policy = lambda record: np.array([bad, 0.0])
    assert bench.run()[ObservationField.TIMEOUTS] == HORIZON


def test_its_own_limit_stands_where_a_guard_failed() -> None:
    bench = Bench(RobotConfig())
    bench.policy = lambda record: np.array([50.0, -50.0])
    last = bench.run()
    moved = last[len(ObservationField) :] - bench.seen[0][len(ObservationField) :]
    assert moved[:2] == pytest.approx([0.1 * HORIZON, -0.1 * HORIZON], abs=1e-4)


def test_the_limits_of_its_site_hold_where_a_guard_failed() -> None:
    bench = Bench(RobotConfig(action_limit=0.4, rate_limit=0.3))
    bench.policy = lambda record: np.array([50.0, -0.1 if record[ObservationField.TICK] % 2 else 50.0])
    bench.run()
    moved = np.diff([record[len(ObservationField) :][:2] for record in bench.seen], axis=0) / 0.1
    assert moved[:, 0] == pytest.approx([0.3, *[0.4] * (len(moved) - 1)], abs=1e-5)
    assert moved[:4, 1] == pytest.approx([0.3, 0.0, 0.3, 0.0], abs=1e-5)


def test_a_command_of_another_episode_is_not_acted_upon() -> None:
    bench = Bench(RobotConfig())
    bench.commands.write(bench.now, np.array([7.0, 0.0, 1.0, 1.0]))
    assert bench.run()[ObservationField.TIMEOUTS] == HORIZON


class Ladder:
    """The state is the sum of the choices so far, and the last choice."""

    def __init__(self) -> None:
        self.out = np.zeros(2)

    def reset(self, start: int, out: Mapping[str, np.ndarray]) -> None:
        """At 0."""
        out["state"][...] = self.out[:] = 0.0

    def step(self, action: np.ndarray | int, out: Mapping[str, np.ndarray]) -> tuple[float, bool, bool]:
        """An index, as suites take it."""
        assert type(action) is int
        self.out[:] = self.out[0] + action, action
        out["state"][...] = self.out
        return float(action), False, False


@pytest.mark.parametrize(("kept", "held"), [((), 0.0), (("made:0",), 5.0)])
def test_a_choice_is_taken_as_it_is_and_what_is_none_is_not_taken(kept: tuple[str, ...], held: float) -> None:
    task = Task(
        "made/ladder", ObservationSpec(state=2), ActionSpec(discrete=6), 50.0, 1, 8, Score("return"), "1"
    )
    # of the site's limits none is for choices
    bench = Bench(
        RobotConfig(action_limit=0.5, rate_limit=0.1, hold_last=kept), task=task, environment=Ladder()
    )
    proposed = [5.0, 0.0, 5.0, 6.0, -1.0, 2.5, np.nan, 4.0]
    bench.policy = lambda record: np.array([proposed[int(record[ObservationField.TICK])]])
    last = bench.run()
    chosen = [record[-1] for record in [*bench.seen[1:], last]]
    assert chosen == [5.0, 0.0, 5.0, held, held, held, held, 4.0]
    assert last[ObservationField.TIMEOUTS] == 4


def test_a_simulator_that_is_late_slips_and_says_so() -> None:
    bench = Bench(RobotConfig())
    bench.overshoot = 0.6 * PERIOD
    last = bench.run()
    assert last[ObservationField.SLIPS] == HORIZON
    assert last[ObservationField.TICK] == HORIZON
    bench = Bench(RobotConfig())
    bench.overshoot = 0.4 * PERIOD
    assert bench.run()[ObservationField.SLIPS] == 0
