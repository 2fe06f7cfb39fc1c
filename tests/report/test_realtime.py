"""Latency files and real-time episodes: read as the deployment writes them, refused when damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mtrl.errors import IntegrityError
from mtrl.report.realtime import read_deployment, read_latency

from ..evaluation.samples import REACH, deployment_report, latency

FIELDS = {"unit": "us", "p50": 15.0, "p99": 30.0, "max": 35.0, "calls": 4}


def latency_file(path: Path, **changes: object) -> Path:
    histogram = {"edges": [10.0, 20.0, 40.0], "counts": [3, 1]}
    path.write_text(json.dumps({**FIELDS, "samples_us_histogram": histogram, **changes}))
    return path


def test_latency_is_read(tmp_path: Path) -> None:
    found = read_latency(latency_file(tmp_path / "latency.json", repeats=3))
    assert (found.edges, found.counts) == ((10.0, 20.0, 40.0), (3, 1))
    assert (found.p50, found.p99, found.max, found.samples) == (15.0, 30.0, 35.0, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit": "ms"}, 'unit must be "us"'),
        ({"calls": 5}, "counts must add up to calls; got 4 and 5"),
        ({"p99": 14.0}, "p50 <= p99 <= max"),
        ({"max": None}, "max must be a number"),
        ({"samples_us_histogram": {"edges": [20.0, 10.0], "counts": [4]}}, "ascending"),
        ({"samples_us_histogram": {"edges": [10.0, 20.0], "counts": [3, 1]}}, "one number of at least 0"),
        ({"samples_us_histogram": {"edges": [10.0, 20.0], "counts": [4.5]}}, "whole numbers"),
        ({"samples_us_histogram": {"edges": "10", "counts": [4]}}, r"samples_us_histogram\.edges"),
    ],
)
def test_wrong_latency_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(IntegrityError, match=message) as caught:
        read_latency(latency_file(tmp_path / "latency.json", **changes))
    assert "latency.json" in str(caught.value)


def test_the_file_of_a_deployment_is_read(tmp_path: Path) -> None:
    report = deployment_report(REACH, ticks=40, misses=1)
    path = tmp_path / "episode.json"
    path.write_text(json.dumps(report.as_json()))
    found = read_deployment(path)
    assert (found.task, found.robot, found.success, found.ticks) == (REACH, "sim", True, 40)
    assert found.deadline_miss_fraction == report.deadline_miss_fraction == 1 / 40
    assert found.inference is not None
    assert found.inference.p99 == report.inference.p99
    assert found.observation_to_command is not None
    assert found.observation_to_command.samples == report.observation_to_command.samples
    assert found.warnings == report.warnings


def test_an_episode_without_an_answer_has_no_latency(tmp_path: Path) -> None:
    path = tmp_path / "episode.json"
    path.write_text(
        json.dumps({**deployment_report(REACH, 5, 5).as_json(), "latency": latency([]).as_json()})
    )
    assert read_deployment(path).inference is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 99}, "schema must be 1"),
        ({"deadline_misses": 41}, "deadline_misses 0 to ticks; got 40 and 41"),
        ({"deadline_miss_fraction": 0.0}, "deadline_miss_fraction must be deadline_misses / ticks"),
        ({"success": "yes"}, "success must be true or false"),
        ({"robot": "sim"}, "robot must be an object"),
        ({"warnings": "none"}, "warnings must be a list"),
    ],
)
def test_wrong_episodes_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = tmp_path / "episode.json"
    path.write_text(json.dumps({**deployment_report(REACH, 40, 1).as_json(), **changes}))
    with pytest.raises(IntegrityError, match=message) as caught:
        read_deployment(path)
    assert "episode.json" in str(caught.value)
