"""The page of a flight log: its numbers are those of the log, its limits those in force."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from mtrl.deployment import Flight, Guard, GuardConfig, GuardFlag
from mtrl.deployment.artefact.joints import Joint
from mtrl.deployment.flight.log import write_flight
from mtrl.deployment.realtime.records import FlightRing, joint_words, row_width
from mtrl.deployment.robots.site import Binding, Site
from mtrl.errors import ConfigError, IntegrityError
from mtrl.report.flight import write_flight_report

TICKS = 40
SITE = Site(
    (Joint("elbow", -90, 90, 100, unit="deg", effort=7.0), Joint("rail", 0, 400, 200, unit="mm")),
    {"bench": Binding(("position.elbow", "position.rail"), ("0.1 * shift.elbow",))},
)


def flown(ticks: int) -> Flight:
    """A flight on two joints, whose policy is silent for five decisions and asks for too much in others."""
    words = joint_words(2, 1)
    ring = FlightRing(np.zeros(max(1, ticks) * row_width(2, 1, words)), 2, 1, words)
    config = GuardConfig(action_size=1, hold=("zero",), action_limit=0.75, rate_limit=0.5)
    guard = Guard(config)
    guard.arm(10.0)
    for tick in range(ticks):
        now = 10.0 + tick / 80
        proposal = np.array([0.9 if tick % 2 else 0.1])
        proposed = now - (0.5 if 20 <= tick < 25 else 0.001)
        guarded = guard.check(np.zeros(2), now, proposal, 1e-5, now + 0.0005, proposed)
        numbers = (
            tick, now, now, now + 0.0005, proposed, now + 0.001, 1e-5, 1, guarded.flags, guarded.state, 0,
        )  # fmt: skip
        ring.append(numbers, np.array([0.1, 0.2]), proposal, guarded.action, np.full(words, 0.05))
    flight = Flight.of(ring, ticks, "bench/point", "ab" * 32, config)
    return Flight(**{**vars(flight), "names": ("elbow", "rail"), "site": SITE.to_json(), "rate_hz": 80.0})


def test_the_page_shows_states_limits_times_and_events(tmp_path: Path) -> None:
    write_flight(tmp_path / "flight.mcap", flown(TICKS))
    page = write_flight_report(tmp_path / "flight.mcap")
    assert page == tmp_path / "flight.html"
    text = page.read_text(encoding="utf-8")
    assert text.count("STALE_PROPOSAL") >= 2, "as a cause, and as a finding"
    assert re.search(r"STALE_PROPOSAL</td><td>5<", text), "of five decisions"
    assert "RUN → HOLD" in text and "HOLD → RUN" in text
    for caption in ("0.1 * shift.elbow", "elbow, deg", "elbow, deg/s", "elbow, N m", "rail, mm"):
        assert f"<b>{caption}</b>" in text, caption
    assert "<b>rail, N</b>" not in text, "no limit of effort was stated"
    assert text.count(">limit<") >= 2 * 6, "two limits in each of the six figures"
    assert str(GuardFlag.CLIPPED.name) in text
    assert "bit for bit" in text
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_what_is_no_log_or_holds_no_decision_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.mcap").write_bytes(b"none")
    with pytest.raises(IntegrityError, match="whole flight log"):
        write_flight_report(tmp_path / "none.mcap")
    write_flight(tmp_path / "empty.mcap", flown(0))
    with pytest.raises(ConfigError, match="holds no decision"):
        write_flight_report(tmp_path / "empty.mcap")
