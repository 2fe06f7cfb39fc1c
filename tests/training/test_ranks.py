"""The loop on two ranks over gloo: equal weights, exact resuming, stops and errors of one rank."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ..ranks import Outcome, play
from .rank_cases import PLACE

MODULE = "tests.training.rank_cases"


def played(case: str, place: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv(PLACE, str(place))
    return play(MODULE, case, folder)


def weights(outcome: Outcome) -> dict[str, np.ndarray]:
    return {name: values for name, values in outcome.arrays.items() if name.startswith("weight/")}


def test_ranks_stay_equal_and_an_interrupted_run_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = played("whole", tmp_path / "whole", tmp_path / "a", monkeypatch)
    assert first.facts["finished"] and second.facts["finished"], first.log + second.log
    # two ranks collect 28 steps in a round, 150 of which are random play
    assert first.facts["steps"] == second.facts["steps"] == 476
    assert first.facts["updates"] == second.facts["updates"] == int(0.2 * (476 - 168))
    assert weights(first)
    for name, values in weights(first).items():
        np.testing.assert_array_equal(values, weights(second)[name])
    stopped = played("stopped", tmp_path / "parts", tmp_path / "b", monkeypatch)
    assert [rank.facts["finished"] for rank in stopped] == [False, False], stopped[0].log + stopped[1].log
    # both stop in the round in which one was asked to
    assert {rank.facts["steps"] for rank in stopped} == {12 * 28}
    resumed, _ = played("whole", tmp_path / "parts", tmp_path / "c", monkeypatch)
    assert resumed.facts["finished"], resumed.log
    for name, values in weights(first).items():
        np.testing.assert_array_equal(values, weights(resumed)[name])
    logged = [(tmp_path / run / "metrics.jsonl").read_bytes() for run in ("whole", "parts")]
    assert logged[0] == logged[1]


def test_an_error_of_one_rank_ends_both_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = played("failing", tmp_path / "run", tmp_path / "a", monkeypatch)
    assert first.facts["error"] == "RankError", first.log
    assert "rank 1 failed with ResourceError: the simulator of rank 1 is gone" in first.facts["message"]
    assert second.facts["error"] == "ResourceError", second.log
