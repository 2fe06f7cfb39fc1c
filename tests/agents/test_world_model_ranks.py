"""World models of two processes stay one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ..ranks import play
from .world_model_ranks import CASES


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    found = play("tests.agents.world_model_ranks", "learners", folder, limit=200)
    assert all("failing" in rank.facts for rank in found), [(rank.facts, rank.log) for rank in found]
    return [rank.facts for rank in found]


@pytest.mark.parametrize("name", [*CASES, "lacking"])
def test_ranks_with_other_experience_are_bit_equal(ranks: list[dict[str, Any]], name: str) -> None:
    zero, one = (rank[name] for rank in ranks)
    assert zero == one and zero["moved"]


def test_a_reward_that_is_not_finite_stops_both(ranks: list[dict[str, Any]]) -> None:
    zero, one = (rank["failing"] for rank in ranks)
    assert zero[0] == one[0] == "DivergenceError"
    assert zero[1] == "rank 1: " + one[1] and "made/push" in one[1]
