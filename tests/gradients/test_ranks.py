"""Gradient surgery over two processes with samples of their own is that of one process with all samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ..ranks import play
from .rank_cases import CONFIGS

MODULE = "tests.gradients.rank_cases"


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    found = play(MODULE, "methods", folder, limit=300)
    assert all("failures" in rank.facts for rank in found), [(rank.facts, rank.log) for rank in found]
    return [rank.facts for rank in found]


@pytest.mark.parametrize("name", CONFIGS)
def test_two_ranks_are_one_process_with_all_samples(ranks: list[dict[str, Any]], name: str) -> None:
    zero, one = (rank[name] for rank in ranks)
    for kind in ("torch.float32", "torch.float64"):
        assert zero[kind]["digest"] == one[kind]["digest"], "bit-equal"
        assert zero[kind]["choice"] == one[kind]["choice"]
    assert zero["torch.float32"]["gradient"] < 1e-6
    assert zero["torch.float64"]["weights"] < 1e-9
    assert zero["torch.float64"]["moved"] > 1e-4
    assert zero["torch.float64"]["streamed"] == (name == "streamed")


@pytest.mark.parametrize("name", ["pcgrad", "famo", "uncertainty"])
def test_unequal_portions_count_every_sample_once(ranks: list[dict[str, Any]], name: str) -> None:
    assert ranks[0]["portions"][name] < 1e-9


def test_what_fails_on_one_rank_fails_on_both(ranks: list[dict[str, Any]]) -> None:
    zero, one = (rank["failures"] for rank in ranks)
    for name in ("pcgrad", "loop", "famo", "perturbed", "streamed", "dwa"):
        assert "task 2: " in one[name]
        assert zero[name] == "rank 1: " + one[name]
    for failures in (zero, one):
        assert "gradients.memory_mb" in failures["too large"]
        assert "no more memory" in failures["within a stream"]
        assert failures["still"] == 2.0
    assert zero["within a stream"].startswith("RankError: rank 1 failed with ArithmeticError")
