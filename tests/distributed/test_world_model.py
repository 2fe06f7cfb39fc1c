"""A world model learns on Ray from plans of its own and from demonstrations; its student follows it."""

from __future__ import annotations

from pathlib import Path

from mtrl.training import read_jsonl

from ..agents.test_world_model_command import CLONING, DEMONSTRATED, DISTILLED, train


def test_actors_on_ray_imitate_plans_and_demonstrations_and_follow_a_student(
    ray_cluster: None, tmp_path: Path
) -> None:
    words = ("runtime.kind=ray", "runtime.actors=2", *CLONING, *DEMONSTRATED, *DISTILLED)
    assert train(tmp_path, "ray", *words) == 0
    rows = read_jsonl(tmp_path / "ray" / "metrics.jsonl")
    assert rows[-1]["updates"] > 0 and "planning_gain/point/obstacle" in rows[-1]
