"""What a flight in shadow finds, by hand: two rails that somebody else moves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mtrl.deployment import Flight, GuardConfig, ShadowFinding, read_flight, shadow_finding
from mtrl.deployment.flight.log import write_flight
from mtrl.deployment.realtime.records import Column
from mtrl.deployment.robots.site import read_site
from mtrl.report.flight import write_flight_report

SITE = """
joints:
  - {name: x, unit: mm, low: -1500, high: 1500, velocity: 5000}
  - {name: y, unit: m, low: -1.5, high: 1.5, velocity: 5}
topics: {command: table/commands, kind: trajectory, state: arm/joint_states}
tasks:
  bench/point:
    observation: [position.x, position.y, velocity.x, velocity.y]
    action: [0.02 * shift.x, 0.02 * shift.y]
"""


def shadowed(folder: Path, actions: np.ndarray, positions: np.ndarray) -> Flight:
    """At 50 Hz; `actions` and `positions` in metres are [N, 2]."""
    (folder / "robot.yaml").write_text(SITE)
    count = len(actions)
    numbers = np.zeros((count, len(Column)))
    numbers[:, Column.TICK] = np.arange(count)
    times = (Column.SCHEDULED, Column.OBSERVED, Column.READ, Column.INFERRED, Column.SENT)
    numbers[:, times] = 10.0 + 0.02 * np.arange(count)[:, None]
    nothing = np.full((count, 2), np.nan)
    rest = np.zeros((count, 2 * 2 + 2 * 2 + 3))
    return Flight(
        "bench/point",
        "0" * 64,
        GuardConfig(action_size=2, hold=("zero", "zero")),
        numbers,
        np.zeros((count, 4)),
        actions,
        actions,
        mode="shadow",
        joints=np.concatenate([nothing, positions, rest], axis=1),
        names=("x", "y"),
        site=read_site(folder / "robot.yaml").to_json(),
        rate_hz=50.0,
    )


@pytest.fixture
def agreeing(tmp_path: Path) -> Flight:
    """The controller moves x by 20 mm a decision, as the policy says; y stays."""
    positions = np.zeros((8, 2))
    positions[:, 0] = 0.02 * np.arange(8)
    return shadowed(tmp_path, np.tile([1.0, 0.0], (8, 1)), positions)


def test_a_policy_that_agrees_has_no_mismatch(agreeing: Flight) -> None:
    found = shadow_finding(agreeing)
    assert found == ShadowFinding(6, 0, 0.0, "", "", 0, 0.0)
    assert str(found) == "in shadow 0 of 6 decisions would have moved a joint otherwise"
    assert shadow_finding(dataclasses.replace(agreeing, mode="armed")) is None


def test_a_mismatch_is_counted_with_the_largest_and_when(agreeing: Flight) -> None:
    """In decision 3 x would go back: 20 mm + 20 mm. In decision 5 y would move 10 mm where it stayed."""
    agreeing.command[3, 0], agreeing.command[5, 1] = -1.0, 0.5
    found = shadow_finding(agreeing)
    assert found is not None
    assert (found.compared, found.mismatches, found.joint, found.unit, found.tick) == (6, 2, "x", "mm", 3)
    assert (found.largest, found.at_s) == pytest.approx((40.0, 0.06))
    assert str(found).endswith("the largest, 40 mm of x, in decision 3 (0.06 s)")


def test_noise_and_decisions_that_were_not_seen_are_no_mismatch(agreeing: Flight) -> None:
    agreeing.joints[:, 2] += 0.002 * (-1.0) ** np.arange(8)
    found = shadow_finding(agreeing)
    assert found is not None and (found.compared, found.mismatches) == (6, 0)
    agreeing.numbers[4:, Column.TICK] += 3
    found = shadow_finding(agreeing)
    assert found is not None and found.compared == 4


def test_the_log_and_its_page_hold_the_finding(agreeing: Flight, tmp_path: Path) -> None:
    agreeing.command[3, 0] = -1.0
    write_flight(tmp_path / "flight.mcap", dataclasses.replace(agreeing, ending="over"))
    again = read_flight(tmp_path / "flight.mcap")
    assert shadow_finding(again) == shadow_finding(agreeing)
    page = write_flight_report(tmp_path / "flight.mcap").read_text()
    assert "in shadow 1 of 6 decisions would have moved a joint otherwise" in page
