"""Pages of measured figures say what their JSON says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.side_by_side import draw, interleave, median_of

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
RECORDS = [path for path in sorted(RESULTS.glob("*.json")) if "bars" in json.loads(path.read_text())]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_page_is_drawn_from_its_record(path: Path) -> None:
    assert path.with_suffix(".md").read_text() == draw(json.loads(path.read_text()))


def test_rivals_take_turns_after_one_unmeasured_call_each() -> None:
    calls: list[str] = []

    def rival(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    found = interleave({"a": lambda: rival("a"), "b": lambda: rival("b")}, runs=2)
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert found == {"a": [3.0, 5.0], "b": [4.0, 6.0]}
    # within a run, not between medians: 4 / 3 and 6 / 5
    assert median_of(lambda a, b: b / a, found["a"], found["b"]) == pytest.approx((4 / 3 + 6 / 5) / 2)
