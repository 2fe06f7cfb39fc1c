"""Learners under Ray Train: killed for real, and nothing lost."""

from pathlib import Path

import pytest

from mtrl.errors import ResourceError
from mtrl.training import Checkpoints, read_jsonl

from .learning import FRAGMENT, SAC, killer, replay_of, train, work_of

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


def test_more_processes_than_processors_are_refused_at_once(tmp_path: Path) -> None:
    work = work_of(tmp_path / "run", 640, SAC, runtime={"kind": "ray", "learners": 3, "actors": 3})
    with pytest.raises(ResourceError, match="need 6 processors; the cluster has 4"):
        train(work)
    work = work_of(tmp_path / "other", 640, SAC, runtime={"kind": "ray", "learners": 2, "actors": 1})
    with pytest.raises(ResourceError, match="is fewer than"):
        train(work)
