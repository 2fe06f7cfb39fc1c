"""The collective operations of two and three real processes over gloo, and of one alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtrl.errors import RankError
from mtrl.reducer import ALONE, open_gloo

from .ranks import Outcome, play
from .reducer_cases import drawn

MODULE = "tests.reducer_cases"


@pytest.mark.parametrize("size", [2, 3])
def test_every_call_gives_all_ranks_the_same(tmp_path: Path, size: int) -> None:
    ranks = play(MODULE, "every_call", tmp_path, size)
    assert all(rank.facts and "error" not in rank.facts for rank in ranks), [rank.log for rank in ranks]
    for rank in ranks[1:]:
        assert without_failures(rank) == without_failures(ranks[0])
        for name, values in ranks[0].arrays.items():
            np.testing.assert_array_equal(rank.arrays[name], values, err_msg=name)
    first = ranks[0]
    made = [drawn(rank) for rank in range(size)]
    for name in ("whole", "fine", "number", "count"):
        expected = sum(part[name].double() for part in made)
        np.testing.assert_allclose(first.arrays[name], expected, rtol=1e-5, atol=1e-6)
    half = sum(part["half"].float() for part in made)
    np.testing.assert_array_equal(first.arrays["half"], half.bfloat16().float(), "added in float32")
    assert first.facts["kinds"][2] == "torch.bfloat16"
    np.testing.assert_allclose(
        first.arrays["partial"], sum(part["whole"].double() for part in made[1:]), rtol=1e-5, atol=1e-6
    )
    rows = [np.arange(4.0 * rank).reshape(-1, 2) + 100 * rank for rank in range(size)]
    np.testing.assert_array_equal(first.arrays["rows"], np.concatenate(rows), "rank 0 has no row")
    assert first.arrays["flags"].tolist() == [False, True, True, True, False, True][: 2 * size]
    assert first.facts["agreed"] == pytest.approx([1.0, float(size), 0.1 * size, 1.0, 0.0])
    assert first.facts["received"] == {"from": 0, "text": "ü", "list": [1, None, 2.5]}
    failures_are_named_on_all([rank.facts["failures"] for rank in ranks])


def without_failures(rank: Outcome) -> dict[str, Any]:
    return {name: value for name, value in rank.facts.items() if name != "failures"}


def failures_are_named_on_all(ranks: list[dict[str, Any]]) -> None:
    zero, one, *others = ranks
    assert one["other"] == {"error": "ValueError", "message": "of no use\nsecond line"}
    assert zero["other"]["error"] == "RankError"
    assert "rank 1 failed with ValueError: of no use" in zero["other"]["message"]
    assert zero["diverged"]["error"] == one["diverged"]["error"] == "DivergenceError"
    assert one["diverged"]["message"] == "rank 0: " + zero["diverged"]["message"]
    assert zero["both"]["error"] == "RankError", "what is left out elsewhere would end the run there"
    assert one["both"]["error"] == "ValueError"
    for other in others:
        assert other["other"] == zero["other"] and other["diverged"] == one["diverged"]
    assert {rank["still"] for rank in ranks} == {float(len(ranks))}, "an error leaves the group whole"


@pytest.mark.parametrize("size", [2, 3])
def test_a_rank_that_was_killed_is_named_at_once(tmp_path: Path, size: int) -> None:
    ranks = play(MODULE, "killed", tmp_path, size, limit=60)
    for rank in (ranks[0], *ranks[2:]):
        assert rank.facts["error"] == "RankError", rank.log
        assert "rank 1 ended: the connection was lost" in rank.facts["message"]


def test_a_rank_that_does_not_answer_is_named_in_time(tmp_path: Path) -> None:
    zero, _ = play(MODULE, "silent", tmp_path, limit=60)
    assert zero.facts["error"] == "RankError"
    assert "rank 1 did not answer within 5 s" in zero.facts["message"]
    assert 4.0 < zero.facts["seconds"] < 8.0


def test_nobody_waits_for_a_rank_that_withdrew(tmp_path: Path) -> None:
    zero, _ = play(MODULE, "withdrawn", tmp_path, limit=60)
    assert zero.facts["error"] == "RankError"
    assert "rank 1 failed with OSError: no space left" in zero.facts["message"]
    assert zero.facts["seconds"] < 4.0


def test_a_group_that_nobody_joins_is_given_up() -> None:
    with pytest.raises(RankError, match=r"rank 1 met no group of 2 ranks at 127.0.0.1:9"):
        open_gloo(1, 2, port=9, timeout=1.0)


def test_alone_nothing_is_copied() -> None:
    assert open_gloo(0, 1) is ALONE
    made = drawn(0)
    assert ALONE.sums(lambda: made, {}) is made
    rows = torch.zeros(2, 3)
    assert ALONE.gather(rows) is rows
    assert ALONE.agree(3.5, "sum") == 3.5 and ALONE.agree(3.5, "any") == 1.0
    assert ALONE.broadcast(rows) is rows
