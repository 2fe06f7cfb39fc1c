"""What two commits' figures and metrics come to: directions, means, intervals, and equal bits."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks.two_commits import RUNS, SCRIPTS, CommitError
from benchmarks.two_commits.metrics import compare_runs, describe, spelled
from benchmarks.two_commits.ratios import Comparison, Pair, better, ratio_of
from mtrl.launch.compose import compose

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"


def pair(number: int, before: dict[str, float], after: dict[str, float], script: str = "gradients") -> Pair:
    def named(figures: dict[str, float]) -> dict[str, float]:
        return {f"{script}/{key}": value for key, value in figures.items()}

    return {
        "script": script,
        "round": number,
        "before": named(before),
        "after": named(after),
        "seconds": [1.0, 1.0],
    }


def test_every_figure_is_turned_so_that_higher_is_better() -> None:
    assert better("sac/steps_per_second", 80.0) == 80.0
    assert better("gradients/pcgrad_ms_k50", 0.5) == 2.0
    # half of the simulator's time saved, none added, as much again added
    assert [better("stepping/overhead_metaworld_official", value) for value in (-0.5, 0.0, 1.0)] == [
        2,
        1,
        0.5,
    ]
    # a difference of times below zero has no ratio to another
    assert better("stepping/overhead_cartpole_us", -1.0) is None
    assert better("sac/bf16_speedup", math.nan) is None
    with pytest.raises(CommitError, match="sac/steps_per_hour is a figure without a direction"):
        better("sac/steps_per_hour", 1.0)
    with pytest.raises(CommitError, match="stepping/steps_per_second"):
        better("stepping/steps_per_second", 1.0)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_published_figure_has_a_direction(script: str) -> None:
    record = json.loads((RESULTS / f"{script}.json").read_text())
    figures = {key: value for key, value in record.items() if isinstance(value, float)}
    del figures["load_average"]
    assert figures and all(better(f"{script}/{key}", value) for key, value in figures.items())


def test_ratios_are_geometric_means_over_rounds_with_students_interval() -> None:
    found = ratio_of([math.log(1.1), math.log(1.2), math.log(1.3)])
    assert found.ratio == pytest.approx((1.1 * 1.2 * 1.3) ** (1 / 3))
    # logs 0.0953, 0.1823, 0.2624: mean 0.1800, deviation 0.08357; 4.3027 is the quantile of two degrees
    assert found.low is not None and found.high is not None
    reach = 4.3027 * 0.083553 / math.sqrt(3)
    assert math.log(found.high) == pytest.approx(0.180005 + reach, abs=1e-4)
    assert math.log(found.low) == pytest.approx(0.180005 - reach, abs=1e-4)
    assert ratio_of([0.0]).low is None


def test_the_mean_is_over_what_both_commits_have_in_every_round() -> None:
    old = {"mixed_efficiency": 1.0, "overhead_cartpole_us": -1.0}
    new = {"mixed_efficiency": 2.0, "overhead_cartpole_us": 1.0}
    pairs = [
        pair(1, old, new, "stepping"),
        pair(1, {"pcgrad_ms_k50": 4, "streamed_peak_ratio": 1}, {"pcgrad_ms_k50": 8, "torchjd_ratio_k10": 1}),
    ]
    comparison = Comparison.of(pairs)
    # twice as good and twice as slow
    assert {key: figure.ratio.ratio for key, figure in comparison.figures.items()} == {
        "stepping/mixed_efficiency": pytest.approx(2.0),
        "gradients/pcgrad_ms_k50": pytest.approx(0.5),
    }
    assert comparison.mean is not None and comparison.mean.ratio == pytest.approx(1.0)
    assert comparison.left_out == {
        "stepping/overhead_cartpole_us": "not always above zero, so without ratio",
        "gradients/streamed_peak_ratio": "only before has it",
        "gradients/torchjd_ratio_k10": "only after has it",
    }
    later = pair(2, {"pcgrad_ms_k50": 4.0, "streamed_peak_ratio": 1.0}, {"streamed_peak_ratio": 1.0})
    left_out = Comparison.of([*pairs, later]).left_out
    assert left_out["gradients/pcgrad_ms_k50"] == "not every round has it"


def write_run(folder: Path, files: dict[str, list[str]]) -> Path:
    for name, lines in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(line + "\n" for line in lines))
    return folder


def test_values_are_compared_bit_for_bit(tmp_path: Path) -> None:
    lines = ['{"step": 1, "a": 0.1, "b": null}', '{"step": 2, "a": 0.0, "b": 3}']
    old = write_run(tmp_path / "old", {"metrics.jsonl": lines, "bc/metrics.jsonl": lines})
    assert compare_runs(old, old).equal and compare_runs(old, old).values == 12

    def against(name: str, files: dict[str, list[str]]) -> str:
        outcome = compare_runs(old, write_run(tmp_path / name, files))
        return "\n".join(describe("run", outcome))

    bc = {"bc/metrics.jsonl": lines}
    # a float that came to be written as one is the same number; 0.0 and -0.0 are not
    same = {"metrics.jsonl": [lines[0], '{"step": 2, "a": 0.0, "b": 3.0}'], **bc}
    assert against("same", same) == "run: equal, 12 values"
    minus = {"metrics.jsonl": lines, "bc/metrics.jsonl": [lines[0], '{"step": 2, "a": -0.0, "b": 3}']}
    assert "bc/metrics.jsonl, step 2.0, a: before 0.0, after -0.0" in against("minus", minus)
    last = {"metrics.jsonl": ['{"step": 1, "a": 0.1, "b": null}', '{"step": 2, "a": 5e-324, "b": 4}'], **bc}
    assert "DIFFERS in 2 of 12 values; first\n  metrics.jsonl, step 2.0, a" in against("last", last)
    # a value that a record lacks differs, a key that a side lacks altogether is only named
    lacking = {"metrics.jsonl": ['{"step": 1, "a": 0.1}', lines[1]], **bc}
    assert "step 1.0, b: before None, after no value" in against("lacking", lacking)
    renamed = {"metrics.jsonl": ['{"step": 1, "a": 0.1, "c": 1}', '{"step": 2, "a": 0.0}'], **bc}
    assert against("renamed", renamed).splitlines() == [
        "run: before alone has metrics.jsonl b",
        "run: after alone has metrics.jsonl c",
        "run: equal, 10 values",
    ]
    assert "before alone has 1 records, first number 2" in against(
        "short", {"metrics.jsonl": lines[:1], **bc}
    )
    assert "before alone has 2 records, first number 1 of bc/" in against("gone", {"metrics.jsonl": lines})
    more = {"metrics.jsonl": lines, **bc, "new/metrics.jsonl": lines}
    assert against("more", more).endswith("run: equal, 12 values")
    assert "no value of metrics.jsonl is in both runs" in against("none", {})


def test_the_runs_are_settings_that_this_commit_knows() -> None:
    for words in RUNS.values():
        compose(next(spelled(words)), command="train")
