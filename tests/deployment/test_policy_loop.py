"""The policy's loop under a clock that the test sets, against a scripted robot."""

from __future__ import annotations

import numpy as np
import pytest

from mtrl.deployment import ArtefactPolicy, Guard, GuardConfig, GuardFlag, GuardState, open_artefact
from mtrl.deployment.realtime.controller import ChunkController
from mtrl.deployment.realtime.policy_loop import PolicyLoop
from mtrl.deployment.realtime.records import Column, CommandField, FlightRing, ObservationField, row_width
from mtrl.deployment.realtime.shared_memory import Seqlock, SharedBlock

from .bench_suite import SUITE
from .graphs import STEER, linear_artefact

PERIOD = 0.02


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> ArtefactPolicy:
    directory = tmp_path_factory.mktemp("policy") / "artefact"
    linear_artefact(directory, [SUITE.task("bench/point")], STEER, chunk=4, execute=2)
    return ArtefactPolicy(open_artefact(directory))


class ScriptedRobot:
    """Publishes given states at given times while the loop sleeps, then ends the episode."""

    def __init__(self, policy: ArtefactPolicy, script: list[tuple[float, int, list[float]]]) -> None:
        self.now = 0.0
        self.script = list(script)
        self.observations = Seqlock(SharedBlock.create(Seqlock.words(len(ObservationField) + 4)))
        self.commands = Seqlock(SharedBlock.create(Seqlock.words(len(CommandField) + 2)))
        entry = policy.manifest.tasks[0]
        self.ring = FlightRing(np.zeros(200 * row_width(4, 2)), 4, 2)
        self.guard = Guard(GuardConfig(action_size=2, hold=("zero", "last"), hold_budget=20))
        controller = ChunkController(policy, entry, np.random.default_rng(0))
        self.loop = PolicyLoop(
            controller, self.guard, self.ring, self.observations, self.commands, 1, PERIOD,
            lambda: self.now, self.sleep,
        )  # fmt: skip

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        while self.script and self.script[0][0] <= self.now:
            at, tick, state = self.script.pop(0)
            record = np.array([*np.zeros(len(ObservationField)), *state])
            record[ObservationField.EPISODE] = 1
            record[ObservationField.TICK] = tick
            record[ObservationField.SCHEDULED] = tick * PERIOD + 1
            record[ObservationField.ENDED] = not self.script
            self.observations.write(at, record)

    def run(self) -> FlightRing:
        self.loop.run(lambda: None)
        return self.ring


STATE = [0.0, 0.0, 0.03, -0.05]
ACTION = [0.3, -0.5]


def on_time(ticks: int) -> list[tuple[float, int, list[float]]]:
    return [(1 + tick * PERIOD, tick, STATE) for tick in range(ticks)]


def test_every_observation_gets_one_command(policy: ArtefactPolicy) -> None:
    robot = ScriptedRobot(policy, on_time(11))
    ring = robot.run()
    assert ring.numbers[: ring.count, Column.TICK].tolist() == list(range(10))
    assert ring.command[:10] == pytest.approx(np.tile(ACTION, (10, 1)), abs=1e-6)
    command = np.zeros(4)
    assert robot.commands.read(command) is not None
    assert command[[CommandField.EPISODE, CommandField.TICK]].tolist() == [1, 9]
    assert (robot.loop.ticker.ticks, robot.loop.ticker.misses) == (10, 0)


def test_a_chunk_is_executed_half_and_then_planned_again(policy: ArtefactPolicy) -> None:
    ring = ScriptedRobot(policy, on_time(7)).run()
    assert ring.numbers[:6, Column.PLANNED].tolist() == [1, 0, 1, 0, 1, 0]


def test_actions_of_skipped_ticks_are_skipped_and_counted_as_misses(policy: ArtefactPolicy) -> None:
    script = [row for row in on_time(9) if row[1] not in (3, 4, 5)]
    robot = ScriptedRobot(policy, script)
    ring = robot.run()
    assert ring.numbers[: ring.count, Column.TICK].tolist() == [0, 1, 2, 2, 6, 7]
    # tick 6 lies beyond the chunk that was planned at tick 2, so it plans
    assert ring.numbers[: ring.count, Column.PLANNED].tolist()[-2:] == [1, 0]
    ticker = robot.loop.ticker
    assert (ticker.ticks, ticker.skipped, ticker.misses) == (8, 3, 3)


def test_when_observations_stop_it_streams_hold_commands(policy: ArtefactPolicy) -> None:
    script = [*on_time(3), (1.3, 3, STATE), (1.32, 4, STATE)]
    ring = ScriptedRobot(policy, script).run()
    flags = [GuardFlag(int(value)) for value in ring.numbers[: ring.count, Column.FLAGS]]
    stale = [GuardFlag.STALE_OBSERVATION in flag for flag in flags]
    held = stale.count(True)
    # overdue at 1.06 + 0.04, then every 20 ms until 1.3
    assert 9 <= held <= 11
    assert stale == [False] * 3 + [True] * held + [False]
    assert ring.command[: ring.count][3] == pytest.approx([0.0, -0.5], abs=1e-6)
    assert ring.numbers[ring.count - 1, Column.STATE] == GuardState.RUN
    # the plan that the hold interrupted is not taken up again
    assert ring.numbers[ring.count - 1, Column.PLANNED] == 1


def test_a_bad_observation_reaches_neither_the_history_nor_the_plan(policy: ArtefactPolicy) -> None:
    script = on_time(6)
    script[2] = (script[2][0], 2, [np.nan, 0, 0, 0])
    robot = ScriptedRobot(policy, script)
    ring = robot.run()
    states = ring.numbers[: ring.count, Column.STATE].tolist()
    assert states == [GuardState.RUN, GuardState.RUN, GuardState.HOLD, GuardState.RUN, GuardState.RUN]
    assert ring.command[:5][3] == pytest.approx(ACTION, abs=1e-6)
    assert robot.guard.state is GuardState.RUN


def test_an_answer_after_the_next_tick_is_late(policy: ArtefactPolicy) -> None:
    script = on_time(5)
    script[2] = (script[2][0] + 1.2 * PERIOD, 2, STATE)
    script[3] = (script[2][0] + 0.001, 3, STATE)
    robot = ScriptedRobot(policy, script)
    robot.run()
    assert robot.loop.ticker.misses == 1


def test_observations_of_another_episode_are_ignored(policy: ArtefactPolicy) -> None:
    robot = ScriptedRobot(policy, on_time(3))
    foreign = np.zeros(robot.observations.width)
    foreign[ObservationField.EPISODE] = 9
    robot.observations.write(0.5, foreign)
    assert robot.run().count == 2


def test_a_full_ring_stops_recording_and_not_the_robot(policy: ArtefactPolicy) -> None:
    robot = ScriptedRobot(policy, on_time(11))
    robot.ring.capacity = 4
    assert robot.run().count == 4
    assert robot.loop.ticker.ticks == 10
