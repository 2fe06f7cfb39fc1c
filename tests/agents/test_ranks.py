"""Agents over two processes with samples and noise of their own learn as one process with all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ..ranks import play
from .rank_cases import ALIKE, DIFFUSION, SAC

MODULE = "tests.agents.rank_cases"
LACKING = [f"{name}, lacking a task" for name in ("plain", "pcgrad", "famo")]
Facts = dict[str, Any]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Facts]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    found = play(MODULE, "learners", folder, limit=300)
    assert all("failures" in rank.facts for rank in found), [(rank.facts, rank.log) for rank in found]
    return [rank.facts for rank in found]


@pytest.mark.parametrize("name", [*SAC, *LACKING, *DIFFUSION, "distiller"])
def test_two_ranks_are_one_process_with_all_samples(ranks: list[Facts], name: str) -> None:
    zero, one = (rank[name] for rank in ranks)
    for kind in ("torch.float32", "torch.float64"):
        assert zero[kind]["digest"] == one[kind]["digest"], "bit-equal"
        assert zero[kind]["told"] == one[kind]["told"], "metrics too"
    assert all(difference < 1e-6 for difference in zero["torch.float32"]["gradients"].values())
    assert zero["torch.float64"]["weights"] < 1e-9
    assert zero["torch.float64"]["moved"] > 1e-3
    assert zero["torch.float64"].get("metrics", 0.0) < 1e-9
    assert zero["torch.float64"].get("streamed", False) == (name == "streamed")


def test_episodes_are_ranked_among_those_of_all_ranks(ranks: list[Facts]) -> None:
    found = {**ranks[0]["quality"], **ranks[1]["quality"]}
    assert found == {str(start): round((start + 0.5) / 6, 4) for start in range(6)}


@pytest.mark.parametrize("name", ALIKE)
def test_ranks_stay_alike_where_losses_are_no_sums_over_samples(ranks: list[Facts], name: str) -> None:
    zero, one = (rank["alike"][name] for rank in ranks)
    assert zero == one and zero["moved"] > 1e-3


@pytest.mark.parametrize("name", ["plain", "pcgrad"])
def test_a_number_that_is_not_finite_stops_all_ranks_or_none(ranks: list[Facts], name: str) -> None:
    for rank in ranks:
        kind, message = rank["failures"][f"stop {name}"]
        assert kind == "DivergenceError" and "diverged at update 2" in message and "nan" in message
    assert "rank 1: " in ranks[0]["failures"][f"stop {name}"][1]
    told = [rank["failures"][f"skip {name}"] for rank in ranks]
    assert told[0] == told[1] and told[0][:2] == [[0.0, 1.0, 0.0], 3]


def test_whatever_fails_on_one_rank_is_named_on_both(ranks: list[Facts]) -> None:
    zero, one = (rank["failures"] for rank in ranks)
    assert one["sampling"] == ["OSError", "the disk is gone"]
    assert zero["sampling"][0] == "RankError"
    assert "rank 1 failed with OSError: the disk is gone" in zero["sampling"][1]
    assert one["ingest"][0] == zero["ingest"][0] == "DivergenceError"
    assert zero["ingest"][1] == "rank 1: " + one["ingest"][1]
    distiller = [rank["distiller"]["failure"] for rank in ranks]
    assert distiller[0] == ["DivergenceError", "rank 1: " + distiller[1][1]]
    assert ranks[1]["demonstrations"][0] == "ConfigError"
    assert (
        "rank 1 failed with ConfigError: there is no demonstration of made" in ranks[0]["demonstrations"][1]
    )
    assert zero["still"] == one["still"] == 2.0


def test_ranks_without_data_wait_with_the_others_and_learn_from_theirs(ranks: list[Facts]) -> None:
    zero, one = (rank["failures"]["lacking"] for rank in ranks)
    assert zero == one
    waits, loss, metrics, _ = zero
    assert waits == [0, 0, 2] and loss > 0
    assert not any("made/push" in name and "temperature" not in name for name in metrics)
