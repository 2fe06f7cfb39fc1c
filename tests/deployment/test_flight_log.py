"""The log holds every tick bit for bit, and the guard can be run again from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory

from mtrl.deployment import Flight, Guard, GuardConfig, GuardFlag, read_flight, replay
from mtrl.deployment.flight.log import FlightWriter, write_flight
from mtrl.deployment.realtime.records import Column, FlightRing, row_width
from mtrl.errors import IntegrityError

TICKS = 60
ARRAYS = ("numbers", "observation", "proposal", "command")


@pytest.fixture
def flight() -> Flight:
    """A flight with every kind of trouble in it; numbers are awkward on purpose."""
    generator = np.random.default_rng(3)
    config = GuardConfig(action_size=2, hold=("zero", "last"), rate_limit=1 / 3, hold_budget=5)
    guard = Guard(config)
    ring = FlightRing(np.zeros(TICKS * row_width(3, 2)), 3, 2)
    guard.arm(100.0)
    for tick in range(TICKS):
        observed = 100.0 + tick / 80
        read = observed + (0.05 if tick in (10, 11) else 0.0003)
        state = generator.standard_normal(3).astype(np.float32).astype(np.float64)
        proposal = generator.standard_normal(2)
        if tick == 20:
            state[1] = np.inf
        if tick == 50:
            proposal[0] = np.nan
        seconds = {30: 0.02, 40: np.nan}.get(tick, 1e-5 / 3)
        proposed = read - (0.07 if tick == 35 else 1e-5)
        breach = int(GuardFlag.EFFORT_BEYOND_LIMIT) if tick == 55 else 0
        guarded = guard.check(state, observed, proposal, seconds, read, proposed, breach)
        numbers = (
            tick, observed, observed, read, proposed, read + 2e-5, seconds, 1,
            guarded.flags, guarded.state, breach,
        )  # fmt: skip
        ring.append(numbers, state, proposal, guarded.action)
    return Flight.of(ring, ring.count, "bench/point", "ab" * 32, config)


def test_the_log_reads_back_bit_for_bit(flight: Flight, tmp_path: Path) -> None:
    write_flight(tmp_path / "flight.mcap", flight)
    read = read_flight(tmp_path / "flight.mcap")
    assert (read.task, read.artefact, read.guard) == (flight.task, flight.artefact, flight.guard)
    for name in ARRAYS:
        assert getattr(read, name).tobytes() == getattr(flight, name).tobytes(), name
    assert read.transitions == flight.transitions
    assert len(read.numbers) == TICKS


def test_replaying_the_guard_from_the_log_gives_the_same_commands(flight: Flight, tmp_path: Path) -> None:
    write_flight(tmp_path / "flight.mcap", flight)
    commands, transitions = replay(read_flight(tmp_path / "flight.mcap"))
    assert commands.tobytes() == flight.command.tobytes()
    assert [change.after.name for change in transitions] == [
        "VERIFIED", "CONNECTED", "ARMED", "RUN", "HOLD", "RUN", "HOLD", "RUN", "HOLD", "RUN",
        "HOLD", "RUN", "HOLD", "RUN", "ESTOP",
    ]  # fmt: skip


def test_a_changed_command_does_not_replay(flight: Flight) -> None:
    flight.command[7, 0] = np.nextafter(flight.command[7, 0], 1)
    assert replay(flight)[0].tobytes() != flight.command.tobytes()


def jointed(flight: Flight) -> Flight:
    """The same flight on a robot of two joints, with numbers that need all their bits."""
    draws = np.random.default_rng(4).standard_normal((TICKS, 2 + 5 * 2 + 3))
    return dataclasses.replace(flight, joints=draws, names=("elbow", "wrist"), rate_hz=80.0, site="{}")


def test_a_decoder_of_ros_2_reads_every_number(flight: Flight, tmp_path: Path) -> None:
    """mcap-ros2-support knows the messages from the schemas in the file alone."""
    flight = dataclasses.replace(jointed(flight), clock_ns=1_700_000_000_000_000_123)
    write_flight(tmp_path / "flight.mcap", flight)
    found: dict[str, list] = {}
    with (tmp_path / "flight.mcap").open("rb") as file:
        reader = make_reader(file, validate_crcs=True, decoder_factories=[DecoderFactory()])
        assert reader.get_header().profile == "ros2"
        for schema, channel, message, content in reader.iter_decoded_messages(log_time_order=False):
            assert (schema.encoding, channel.message_encoding) == ("ros2msg", "cdr")
            stamp = content.header.stamp if hasattr(content, "header") else content.stamp
            assert stamp.sec * 10**9 + stamp.nanosec == message.log_time
            found.setdefault(channel.topic, []).append(content)

    def column(topic: str, field: str) -> np.ndarray:
        return np.array([getattr(content, field) for content in found[topic]])

    assert np.array_equal(column("/observation", "state"), flight.observation, equal_nan=True)
    assert np.array_equal(column("/proposal", "action"), flight.proposal, equal_nan=True)
    assert np.array_equal(column("/command", "action"), flight.command)
    assert np.array_equal(
        column("/proposal", "inference_s"), flight.column(Column.INFERENCE_S), equal_nan=True
    )
    assert column("/command", "flags").tolist() == flight.column(Column.FLAGS).tolist()
    assert [change.cause for change in found["/guard/transition"]] == [c.cause for c in flight.transitions]
    assert np.array_equal(column("/joint_states", "position"), flight.joints[:, 2:4])
    assert np.array_equal(column("/joint_states", "effort"), flight.joints[:, 6:8])
    assert {tuple(state.name) for state in found["/joint_states"]} == {("elbow", "wrist")}
    points = [command.points[0] for command in found["/joint_commands"]]
    assert np.array_equal([point.positions for point in points], flight.joints[:, 8:10])
    assert {point.time_from_start.nanosec for point in points} == {12_500_000}
    read = read_flight(tmp_path / "flight.mcap")
    assert read.joints.tobytes() == flight.joints.tobytes()
    assert (read.names, read.site, read.rate_hz) == (flight.names, "{}", 80.0)


def test_an_episode_without_ticks_is_a_log_too(flight: Flight, tmp_path: Path) -> None:
    ring = FlightRing(np.zeros(row_width(3, 2)), 3, 2)
    write_flight(tmp_path / "empty.mcap", Flight.of(ring, 0, "bench/point", "", flight.guard))
    assert len(read_flight(tmp_path / "empty.mcap").numbers) == 0


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_log_is_refused(flight: Flight, tmp_path: Path, keep: float) -> None:
    path = tmp_path / "flight.mcap"
    write_flight(path, flight)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    with pytest.raises(IntegrityError, match=r"flight\.mcap is not a whole flight log"):
        read_flight(path)


def test_what_is_whole_of_an_unfinished_log_is_read_and_replays(flight: Flight, tmp_path: Path) -> None:
    path = tmp_path / "flight.mcap"
    empty = Flight.of(FlightRing(np.zeros(row_width(3, 2)), 3, 2), 0, "t", "", flight.guard)
    file = path.open("wb")
    writer = FlightWriter(file, empty)
    for row in range(TICKS):
        rows = {name: getattr(flight, name)[row : row + 1] for name in ARRAYS}
        writer.append(dataclasses.replace(flight, **rows))
        if row % 10 == 9:
            writer.flush()
    file.close()
    content = path.read_bytes()
    seen = set()
    for end in range(0, len(content) + 1, max(1, len(content) // 80)):
        path.write_bytes(content[:end])
        try:
            part = read_flight(path, unfinished=True)
        except IntegrityError:
            assert not seen
            continue
        seen.add(count := len(part.numbers))
        assert part.numbers.tobytes() == flight.numbers[:count].tobytes()
        assert replay(part)[0].tobytes() == flight.command[:count].tobytes()
    assert seen == set(range(0, TICKS + 1, 10))
    with pytest.raises(IntegrityError, match="unfinished=True"):
        read_flight(path)


def test_messages_stand_at_their_wall_clock_time(flight: Flight, tmp_path: Path) -> None:
    begun = 1_700_000_000_000_000_123
    write_flight(tmp_path / "flight.mcap", dataclasses.replace(flight, clock_ns=begun, ending="over"))
    read = read_flight(tmp_path / "flight.mcap")
    assert (read.clock_ns, read.ending) == (begun, "over")
    with (tmp_path / "flight.mcap").open("rb") as file:
        messages = list(make_reader(file).iter_messages("/observation"))
    expected = [begun + round(at * 1e9) for at in flight.column(Column.OBSERVED)]
    assert [message.log_time for _, _, message in messages] == expected


def test_a_changed_byte_is_refused_or_changes_nothing(flight: Flight, tmp_path: Path) -> None:
    path = tmp_path / "flight.mcap"
    write_flight(path, flight)
    content = path.read_bytes()
    for position in range(50, len(content) - 50, max(1, len(content) // 60)):
        edited = bytearray(content)
        edited[position] ^= 0x10
        path.write_bytes(bytes(edited))
        try:
            read = read_flight(path)
        except IntegrityError:
            continue
        assert read.numbers.tobytes() == flight.numbers.tobytes()
        assert read.command.tobytes() == flight.command.tobytes()


def test_the_ring_refuses_rows_beyond_its_room() -> None:
    ring = FlightRing(np.zeros(2 * row_width(1, 1)), 1, 1)
    numbers = tuple(0.0 for _ in Column)
    one = np.ones(1)
    assert [ring.append(numbers, one, one, one) for _ in range(3)] == [True, True, False]
    assert ring.count == 2
