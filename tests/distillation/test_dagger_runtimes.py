"""A student distilled by DAgger on two ranks is one student."""

from __future__ import annotations

from pathlib import Path

from ..ranks import play


def test_ranks_whose_students_come_to_other_states_stay_bit_equal(tmp_path: Path) -> None:
    zero, one = play("tests.distillation.dagger_ranks", "learners", tmp_path)
    assert zero.facts, zero.log
    states = [rank.facts.pop("states") for rank in (zero, one)]
    assert states[0] != states[1], "each rank labels states of its own"
    assert zero.facts == one.facts
    assert zero.facts["due"] == 160 - 5 and len(zero.facts["metrics"]) == 10
