"""Learners under Ray Train: killed for real, and nothing lost."""

import json
from functools import partial
from pathlib import Path

import pytest

from mtrl import registry
from mtrl.distributed import learn_on_ray, rollouts_for
from mtrl.errors import ResourceError
from mtrl.rollout import FaultLog, RuntimeConfig
from mtrl.training import Checkpoints, read_jsonl

from .beside_one import body
from .learning import FRAGMENT, SAC, TASKS, killer, replay_of, train, work_of

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_learner_goes_on_with_its_replay(tmp_path: Path) -> None:
    runtime = {"kind": "ray", "learners": 2, "actors": 2}
    work = work_of(tmp_path / "run", 640, runtime=runtime)
    seen = train(work, killer(rank=1, at=300))
    assert seen[-1].starts == 2
    steps = [progress.steps for progress in seen]
    assert steps == sorted(steps)
    newest = Checkpoints(work.run).latest()
    assert newest is not None
    step, state = newest
    assert step >= 640
    assert state["shared"]["updates"] > 0
    # every fragment that a rank took is in its replay, and counts once
    records = [replay_of(work, rank).record for rank in range(2)]
    assert all(record is not None and record.steps == FRAGMENT * record.number for record in records)
    assert sum(record.steps for record in records if record is not None) == step
    logged = [row["step"] for row in read_jsonl(work.run / "metrics.jsonl")]
    assert logged == sorted(set(logged))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_ranks_are_bit_equal_and_one_process_with_all_samples(tmp_path: Path) -> None:
    names = ("plain", "pcgrad")
    learn_on_ray(
        partial(body, tmp_path, names),
        registry.task_set(list(TASKS)),
        RuntimeConfig(kind="ray", learners=2, actors=2),
        tmp_path / "ray_train",
        stream=None,
        evaluate=None,
        on_look=lambda progress: False,
        on_fault=FaultLog(),
    )
    zero, one = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    for name in names:
        for kind in ("torch.float32", "torch.float64"):
            assert zero[name][kind]["digest"] == one[name][kind]["digest"], "bit-equal"
        assert all(apart < 1e-6 for apart in zero[name]["torch.float32"]["gradients"].values())
        assert zero[name]["torch.float64"]["moved"] > 1e-3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_steps_of_an_agent_without_a_replay_never_go_back(tmp_path: Path) -> None:
    """Its weights do, to the last checkpoint: the steps since then count as lost."""
    agent = {"name": "ppo", "rollout": 64, "epochs": 1, "minibatches": 1}
    online = {"steps": 1600, "warmup": 0, "log_every": 64, "checkpoint_every": 1000}
    runtime = {"kind": "ray", "learners": 1, "actors": 1}
    work = work_of(tmp_path / "run", 0, agent, runtime=runtime, online=online)
    seen = train(work, killer(rank=0, at=600))
    assert seen[-1].starts == 2
    steps = [progress.steps for progress in seen]
    assert steps == sorted(steps)
    rows = read_jsonl(work.run / "metrics.jsonl")
    logged = [row["step"] for row in rows]
    assert logged == sorted(set(logged)) and logged[-1] >= 1600
    # nothing was saved before the fault
    assert 600 <= rows[-1]["lost_steps"] <= 1000
    assert rows[-1]["updates"] <= (logged[-1] - rows[-1]["lost_steps"]) / 64
    shares = [rows[-1][f"staleness/{part}"] for part in ("0", "1", "2", "3-7", "8+")]
    assert sum(shares) == pytest.approx(1)


def test_stages_after_learning_have_the_processors_of_its_learners() -> None:
    tasks, runtime = registry.task_set(list(TASKS)), RuntimeConfig(kind="ray", learners=2, actors=2)
    rollouts = rollouts_for(tasks, runtime)
    rollouts.close()


def test_more_processes_than_processors_are_refused_at_once(tmp_path: Path) -> None:
    work = work_of(tmp_path / "run", 640, SAC, runtime={"kind": "ray", "learners": 3, "actors": 3})
    with pytest.raises(ResourceError, match="need 6 processors; the cluster has 4"):
        train(work)
    work = work_of(tmp_path / "other", 640, SAC, runtime={"kind": "ray", "learners": 2, "actors": 1})
    with pytest.raises(ResourceError, match="is fewer than"):
        train(work)
