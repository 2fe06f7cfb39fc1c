"""The servo under a clock that the test sets: it decides every command, whatever is proposed or is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from mtrl.deployment import Flight, Guard, GuardConfig, GuardFlag, GuardState, replay
from mtrl.deployment.realtime.records import Column, CommandField, FlightRing
from mtrl.deployment.realtime.servo import Servo

from .scripted import ACTION, PERIOD, Scripted, observe, propose

SERVO_S = 0.002
LIMITS = GuardConfig(
    action_size=2, hold=("zero", "last"), hold_budget=20, stale_limit_s=0.04, proposal_limit_s=3 * PERIOD
)
Event = tuple[float, Callable[[Scripted], None]]


class Run:
    """One episode that a script plays."""

    def __init__(self, script: list[Event], **changes: object) -> None:
        self.world = Scripted(script)
        memory = self.world.memory
        self.ring = FlightRing(memory.ring, 4, 2)
        self.limits = dataclasses.replace(LIMITS, **changes)  # type: ignore[arg-type]
        self.guard = Guard(self.limits)
        self.commands: list[tuple[float, ...]] = []
        self.servo = Servo(
            self.guard, self.ring, memory, 1, PERIOD, SERVO_S, self.world.clock, self.world.sleep
        )
        self.servo.run(self.note)

    def note(self) -> None:
        record = np.zeros(self.world.memory.commands.width)
        if self.world.memory.commands.read(record) is not None:
            found = tuple(record.tolist())
            if not self.commands or self.commands[-1] != found:
                self.commands.append(found)

    @property
    def ticks(self) -> list[int]:
        return self.column(Column.TICK).astype(int).tolist()

    @property
    def flags(self) -> list[GuardFlag]:
        return [GuardFlag(int(value)) for value in self.column(Column.FLAGS)]

    def column(self, column: Column) -> np.ndarray:
        return self.ring.numbers[: self.ring.count, column]

    def replays(self) -> bool:
        flight = Flight.of(self.ring, self.ring.count, "t", "", self.limits)
        return replay(flight)[0].tobytes() == flight.command.tobytes()


def at(tick: float) -> float:
    return 1 + tick * PERIOD


def flown(ticks: int, without: tuple[int, ...] = (), unanswered: tuple[int, ...] = ()) -> list[Event]:
    """A robot and a policy that answers a millisecond later, and the end."""
    script: list[Event] = [(at(tick), observe(tick)) for tick in range(ticks) if tick not in without]
    silent = {*without, *unanswered}
    script += [(at(tick) + 0.001, propose(tick)) for tick in range(ticks) if tick not in silent]
    return [*script, (at(ticks), observe(ticks, ended=True))]


def test_every_proposal_becomes_one_command_within_a_period_of_the_servo() -> None:
    run = Run(flown(10))
    assert run.ticks == list(range(10))
    assert run.ring.command[:10] == pytest.approx(np.tile(ACTION, (10, 1)))
    assert [command[CommandField.TICK] for command in run.commands] == list(range(10))
    assert run.commands[-1][CommandField.EPISODE] == 1
    assert (run.column(Column.READ) - run.column(Column.INFERRED)).max() <= SERVO_S + 1e-9
    assert (run.servo.answered, run.servo.late, run.servo.held) == (10, 0, 0)
    assert run.replays()


def test_when_the_policy_is_lost_it_holds_within_the_limit_and_two_servo_periods() -> None:
    """The last proposal came at tick 4; the robot goes on for two seconds."""
    run = Run(flown(100, unanswered=tuple(range(5, 100))))
    held = [index for index, flags in enumerate(run.flags) if GuardFlag.STALE_PROPOSAL in flags]
    lost_at = at(4) + 0.001
    limit = 3 * PERIOD + 2 * SERVO_S
    assert run.column(Column.SENT)[held[0]] - lost_at <= limit + 1e-9
    # hold commands are streamed, one in a period of the policy, until the budget latches the stop, and on
    gaps = np.diff(run.column(Column.SENT)[held])
    assert gaps.max() <= PERIOD + SERVO_S + 1e-9
    assert run.column(Column.SENT)[-1] >= at(98)
    assert (run.ring.command[held[0] : run.ring.count, 0] == 0).all()
    assert (run.ring.command[held[0] : run.ring.count, 1] == -0.5).all()
    assert run.guard.state is GuardState.ESTOP
    assert run.guard.transitions[-1].cause == "held for more than 20 ticks: STALE_PROPOSAL"
    assert run.replays()


def test_a_policy_that_comes_back_is_followed_again() -> None:
    run = Run(flown(20, unanswered=(5, 6, 7, 8)))
    assert run.servo.held in (1, 2)
    assert run.guard.state is GuardState.RUN
    assert run.ring.command[run.ring.count - 1] == pytest.approx(ACTION)


def test_when_observations_stop_it_streams_hold_commands() -> None:
    run = Run(flown(18, without=tuple(range(3, 15))))
    stale = [GuardFlag.STALE_OBSERVATION in flags for flags in run.flags]
    # the last one came at 1.04: held from a period and the stale limit later, 1.10, to 1.30
    assert 9 <= stale.count(True) <= 11
    first = stale.index(True)
    assert run.column(Column.SENT)[first] - at(2) <= PERIOD + LIMITS.stale_limit_s + 2 * SERVO_S
    assert not any(GuardFlag.STALE_PROPOSAL in flags for flags in run.flags)
    assert run.guard.state is GuardState.RUN
    assert run.ticks[-3:] == [15, 16, 17]


@pytest.mark.parametrize(
    ("bad", "flag"),
    [
        (observe(5, [np.nan, 0, 0, 0]), GuardFlag.OBSERVATION_NOT_FINITE),
        (observe(5, [2000.0, 0, 0, 0]), GuardFlag.OBSERVATION_OUT_OF_RANGE),
        (observe(5, age=0.05), GuardFlag.STALE_OBSERVATION),
        (observe(5, age=-0.01), GuardFlag.STALE_OBSERVATION),
    ],
)
def test_a_bad_observation_is_held_at_once_without_any_proposal(
    bad: Callable[[Scripted], None], flag: GuardFlag
) -> None:
    script = [event for event in flown(10, unanswered=(5,)) if event[0] != at(5)]
    run = Run([*script, (at(5), bad)])
    assert run.ticks == list(range(10))
    assert run.flags[5] == flag
    assert run.column(Column.SENT)[5] - at(5) <= SERVO_S + 1e-9
    assert run.flags[6] == GuardFlag.NONE


def test_a_proposal_for_a_bad_observation_is_held_too() -> None:
    script = [event for event in flown(10) if event[0] != at(5)]
    run = Run([*script, (at(5), observe(5, [np.inf, 0, 0, 0]))])
    assert run.flags[5] == GuardFlag.OBSERVATION_NOT_FINITE
    assert run.ticks == list(range(10))


def test_a_joint_beyond_its_limit_stops_the_robot_before_any_proposal() -> None:
    script = [event for event in flown(10) if event[0] != at(5)]
    breach = GuardFlag.JOINT_BEYOND_LIMIT | GuardFlag.NOT_FOLLOWING
    run = Run([*script, (at(5), observe(5, breach=int(breach)))])
    assert run.flags[5] == breach
    assert run.column(Column.SENT)[5] - at(5) <= SERVO_S + 1e-9
    assert run.guard.transitions[-1].cause == "JOINT_BEYOND_LIMIT and NOT_FOLLOWING"
    assert run.guard.state is GuardState.ESTOP
    assert run.ring.command[run.ring.count - 1].tolist() == [0.0, -0.5]
    assert run.replays()


@pytest.mark.parametrize("tick", [3.0, 2.5, 5.0, 77.0, -1.0, np.nan, np.inf, -np.inf, 1e300])
def test_a_proposal_out_of_sequence_commands_nothing(tick: float) -> None:
    """Observation 4 is the newest and answered; none of these may be answered now."""
    script = flown(10)
    usual = Run(script)
    run = Run([*script, (at(4) + 0.006, propose(tick, [-1.0, 1.0]))])
    assert run.ring.command[:10].tolist() == usual.ring.command[:10].tolist()
    assert run.ticks == list(range(10))


def test_records_of_another_episode_are_ignored() -> None:
    foreign: list[Event] = [
        (0.5, observe(7, episode=9)),
        (at(3) + 0.0105, propose(4, [-1.0, 1.0], episode=9)),
    ]
    run = Run(flown(6) + foreign)
    assert run.ticks == list(range(6))
    assert run.ring.command[:6] == pytest.approx(np.tile(ACTION, (6, 1)))


@pytest.mark.parametrize("ahead", [1000.0, np.inf, np.nan])
def test_a_policy_cannot_put_off_its_own_limit_by_its_stamps(ahead: float) -> None:
    script = flown(40, unanswered=tuple(range(5, 40)))
    run = Run([*script, (at(5) + 0.001, propose(5, ahead=ahead))])
    flags = run.flags
    first = next(k for k, found in enumerate(flags) if GuardFlag.STALE_PROPOSAL in found)
    assert run.column(Column.SENT)[first] <= at(5) + 0.001 + 3 * PERIOD + 2 * SERVO_S + 1e-9
    assert GuardFlag.STALE_PROPOSAL in flags[-1]


def test_a_late_inference_holds_and_a_number_that_is_none_stops() -> None:
    script = flown(10, unanswered=(3, 6))
    late = propose(3, took=0.5)
    run = Run([*script, (at(3) + 0.001, late), (at(6) + 0.001, propose(6, [np.nan, 0.0]))])
    assert run.flags[3] == GuardFlag.LATE_INFERENCE
    assert run.flags[6] == GuardFlag.ACTION_NOT_FINITE
    assert run.guard.state is GuardState.ESTOP
    assert run.replays()


def test_a_proposal_may_answer_the_observation_before_the_newest() -> None:
    late, next_one = propose(3, [0.1, 0.1]), propose(4)
    run = Run([*flown(6, unanswered=(3, 4)), (at(4) + 0.0005, late), (at(4) + 0.003, next_one)])
    assert run.ticks == list(range(6))
    assert run.servo.late == 1
    assert run.ring.command[3] == pytest.approx([0.1, 0.1])


def test_a_writer_that_stops_in_the_middle_delays_no_tick() -> None:
    """What a policy leaves that is stopped while it writes: the sequence stays odd."""

    def half(world: Scripted) -> None:
        world.memory.blocks["proposal"].integers[0] |= 1

    run = Run([*flown(30, unanswered=tuple(range(5, 30))), (at(5), half)])
    assert GuardFlag.STALE_PROPOSAL in run.flags[-1]


def test_a_late_wake_up_is_measured_and_not_made_up_for() -> None:
    """7 ms of sleep too much are three periods and a half: three ticks never run, the others are on time."""

    def oversleep(world: Scripted) -> None:
        world.oversleep = 0.007

    run = Run([*flown(10), (at(3), oversleep)])
    late = run.world.memory.lateness[: run.servo.wake_ups]
    assert late.max() == pytest.approx(0.007, abs=1e-9)
    assert (np.abs(np.delete(late, late.argmax())) < 1e-9).all()
    usual = Run(flown(10)).servo.wake_ups
    assert usual - run.servo.wake_ups == 3


def test_a_full_ring_stops_recording_and_not_the_robot() -> None:
    world = Scripted(flown(11))
    ring = FlightRing(world.memory.ring, 4, 2)
    ring.capacity = 4
    servo = Servo(Guard(LIMITS), ring, world.memory, 1, PERIOD, SERVO_S, world.clock, world.sleep)
    servo.run(lambda: None)
    assert (ring.count, servo.answered) == (4, 11)
