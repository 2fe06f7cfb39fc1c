"""Two processes that play half of each round learn what one does that plays all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtrl.reducer import ALONE

from ..ranks import Outcome, play
from .grpo_ranks import CASES, ONE, critics, outcome

WHOLE = [name for name, changes in CASES.items() if ONE.items() <= changes.items()]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    found = play("tests.agents.grpo_ranks", "learners", folder, limit=200)
    assert all("parts" in rank.facts for rank in found), [(rank.facts, rank.log) for rank in found]
    return found


@pytest.mark.parametrize("name", [*CASES, "ppo"])
def test_ranks_are_bit_equal(ranks: list[Outcome], name: str) -> None:
    assert ranks[0].facts[name] == ranks[1].facts[name]


@pytest.mark.parametrize("name", [*WHOLE, "ppo"])
def test_two_ranks_learn_what_one_does(ranks: list[Outcome], name: str) -> None:
    facts, weights = critics(ALONE) if name == "ppo" else outcome(ALONE, CASES[name])
    np.testing.assert_allclose(ranks[0].arrays[f"{name}/weights"], weights, atol=2e-5)
    for one, two in zip(facts["metrics"], ranks[0].facts[name]["metrics"], strict=True):
        assert one == pytest.approx(two, abs=1e-3)
