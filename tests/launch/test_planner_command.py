"""A planner of states and actions, conditioned on returns, through the commands; and plans as drawn."""

from __future__ import annotations

import contextlib
import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mtrl.deployment import latency_apart, verify
from mtrl.errors import IntegrityError
from mtrl.launch.main import main
from mtrl.pipeline import load_policy
from mtrl.pipeline.plans import plans_of, widest
from mtrl.report.paths import read_plans
from mtrl.rollout import Episodes, Version

WORDS = [
    "tasks=[point/obstacle,maze2d/open]",
    "agent.plan.stride=3",
    "agent.returns.dropout=0.2",
    "agent.network.width=16",
    "agent.network.blocks=1",
    "agent.sampler_steps=2",
    "demonstrations.episodes=4",
    "demonstrations.mixture.noisy=0.25",
    "demonstrations.mixture.failing=0.25",
    "demonstrations.tries=2",
    "updates=12",
    "distillation.updates=4",
    "distillation.network.width=16",
    "distillation.network.blocks=1",
    "evaluation.episodes=1",
    "training.threads=1",
    "tracking=files",
]


def test_it_is_trained_drawn_distilled_exported_and_fine_tuned(tmp_path: Path) -> None:
    stages = "stages=[collect,train,distill,evaluate,export,report]"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr("mtrl.pipeline.export_stage.latency_apart", partial(latency_apart, calls=50, repeats=1))
        assert main(["train", *WORDS, stages, f"output={tmp_path}", "name=planner"]) == 0
    run = tmp_path / "planner"
    drawn = read_plans(run / "plans" / "teacher.json")
    assert [one.task for one in drawn] == ["point/obstacle", "maze2d/open"]
    # a plan after every fourth decision, of eight states and where it was made
    assert all(plan.shape == (9, 2) for one in drawn for plan in one.plans)
    assert len(drawn[1].plans) == 2 * 200 / 4
    page = (run / "report.html").read_text()
    assert "Plans and what came of them" in page and "Plans of teacher: maze2d/open" in page
    assert not (run / "plans" / "student.json").exists(), "a student plans actions alone"
    assert json.loads((run / "artefact" / "manifest.json").read_text())["action_size"] == 2
    assert verify(run / "artefact").golden_error <= 1e-5
    fine_tuned = [f"init_from={run}", "tasks=maze2d/umaze", "demonstrations.episodes=4", "name=fine"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["train", *WORDS, *fine_tuned, "stages=[collect,train]", f"output={tmp_path}"]) == 0
    began, ended = (load_policy(tmp_path / name / "policies" / "teacher")[0] for name in ("planner", "fine"))
    assert ended.tensors["embedding.weight"].shape[0] == 1 < began.tensors["embedding.weight"].shape[0]
    close = np.abs(ended.tensors["torso.enter.weight"] - began.tensors["torso.enter.weight"]).max()
    assert 0 < close < 0.05
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps({"policy": "teacher", "tasks": [{"task": "a", "episodes": []}]}))
    with pytest.raises(IntegrityError, match="episodes"):
        read_plans(broken)


def test_plans_are_compared_with_what_came_by_hand() -> None:
    # x = 0, 1, 2, 3; planned two decisions ahead at the first decision and at the third, whose is not there
    states = np.array([[0, 0], [1, 0], [2, 0], [3, 0]], dtype=np.float32)
    plan = np.zeros((3, 1, 2), dtype=np.float32)
    plan[0, 0] = [3.0, 0.0]
    found = plans_of(
        Episodes(
            task_index=0,
            policy_version=Version(0, 0),
            summaries=(),
            offsets=np.array([0, 3]),
            observations={"state": states},
            continuous=np.zeros((3, 1), dtype=np.float32),
            discrete=np.zeros(3, dtype=np.int64),
            reward=np.zeros(3, dtype=np.float32),
            terminated=np.zeros(3, dtype=bool),
            truncated=np.zeros(3, dtype=bool),
            success=np.zeros(3, dtype=bool),
            extras={"plan": plan, "plan_age": np.array([0, 1, 0])},
        ),
        stride=2,
    )
    # one away, where the point moved by two
    assert found["error"] == 0.5 and found["dimensions"] == [0, 1]
    (episode,) = found["episodes"]
    assert episode["plans"] == [[[0, 0], [3, 0]], [[2, 0], [0, 0]]]


def test_what_stays_the_same_in_an_episode_is_not_drawn() -> None:
    # a goal, far apart in two episodes of two decisions, beside two dimensions that move
    states = np.array([[9, 0, 0], [9, 1, 0], [9, 2, 1], [-9, 0, 0], [-9, 1, 1], [-9, 2, 0]], dtype=np.float32)
    zeros = np.zeros(4, dtype=np.float32)
    none = np.zeros(4, dtype=bool)
    found = plans_of(
        Episodes(
            task_index=0,
            policy_version=Version(0, 0),
            summaries=(),
            offsets=np.array([0, 2, 4]),
            observations={"state": states},
            continuous=zeros[:, None],
            discrete=zeros.astype(np.int64),
            reward=zeros,
            terminated=none,
            truncated=none,
            success=none,
            extras={"plan": np.zeros((4, 1, 3), np.float32), "plan_age": np.array([0, 1, 0, 1])},
        ),
        stride=1,
    )
    assert found["dimensions"] == [1, 2]


def test_the_dimensions_that_are_drawn_say_most() -> None:
    draws = np.random.default_rng(0)
    first, second = 3 * draws.normal(size=100), draws.normal(size=100)
    # the last dimension is the first's opposite, and says nothing new
    assert widest(np.stack([second, first, -0.9 * first], axis=1)) == [1, 0]
    assert widest(np.zeros((4, 1))) == [0, 0]
