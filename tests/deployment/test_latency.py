"""Latency figures: arithmetic on known durations, and a measurement that adds up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtrl.deployment import Latency, latency_apart, measure_latency
from mtrl.errors import IntegrityError

from .bench_suite import SUITE
from .graphs import STEER, linear_artefact


def test_percentiles_of_known_durations() -> None:
    latency = Latency.of(np.linspace(1e-6, 101e-6, 101))
    assert (latency.samples, latency.p50, latency.p99, latency.max) == pytest.approx(
        (101, 51.0, 100.0, 101.0)
    )


def test_every_sample_is_in_one_bin() -> None:
    durations = np.array([1e-9, 1e-6, 15e-6, 15e-6, 2e-3, 7.0])
    latency = Latency.of(durations)
    assert sum(latency.counts) == 6
    assert latency.counts[0] == 2
    assert latency.counts[-1] == 1
    middle = [n for n, low, high in zip(latency.counts, latency.edges, latency.edges[1:], strict=False)
              if low <= 15 < high]  # fmt: skip
    assert middle == [2]
    json = latency.as_json()
    histogram = json["samples_us_histogram"]
    assert isinstance(histogram, dict)
    assert histogram["counts"] == list(latency.counts)


def test_the_stored_histogram_is_trimmed_to_its_filled_bins() -> None:
    histogram = Latency.of(np.full(5, 30e-6)).as_json()["samples_us_histogram"]
    assert isinstance(histogram, dict)
    assert histogram["counts"] == [5]
    low, high = histogram["edges"]
    assert low <= 30 < high


def test_no_samples_is_not_an_error() -> None:
    assert Latency.of(np.zeros(0)).as_json()["samples_us_histogram"] == {"edges": [1.0], "counts": []}


def test_a_measurement_counts_every_call_and_takes_the_median_repeat(tmp_path: Path) -> None:
    noise = np.ones((2, 3), dtype=np.float32)
    linear_artefact(tmp_path / "a", [SUITE.task("bench/point")], STEER, history=2, noise=noise)
    report = measure_latency(tmp_path / "a", calls=300, repeats=3)
    assert [run.samples for run in report.repeats] == [300] * 3
    assert sum(report.median.counts) == 300
    assert report.p99_us == sorted(run.p99 for run in report.repeats)[1] == report.median.p99
    assert report.p50_us == sorted(run.p50 for run in report.repeats)[1]
    assert 0 < report.p50_us <= report.p99_us <= report.max_us
    assert report.as_json()["p99"] == report.p99_us


def test_a_process_of_its_own_gives_the_same_record(tmp_path: Path) -> None:
    noise = np.ones((2, 3), dtype=np.float32)
    linear_artefact(tmp_path / "a", [SUITE.task("bench/point")], STEER, history=2, noise=noise)
    record = latency_apart(tmp_path / "a", calls=200, repeats=3)
    assert record["calls"] == 200 and record["repeats"] == 3
    assert set(record) == set(measure_latency(tmp_path / "a", calls=50, repeats=1).as_json())
    with pytest.raises(IntegrityError, match="could not be measured"):
        latency_apart(tmp_path / "nowhere", calls=1, repeats=1)
