"""What is edited: one small whole example of every format, and what reading it gives, to the last bit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtrl.data import dataset_id_of, read_dataset, write_dataset
from mtrl.deployment import verify
from mtrl.evaluation import read_result, result_record, write_result
from mtrl.launch.compose import compose
from mtrl.launch.reopen import recorded_config
from mtrl.pipeline import agent_of, task_set_of
from mtrl.pipeline.policies import load_policy, save_policy
from mtrl.report.contents import read_run
from mtrl.rollout import Acting, policy_from
from mtrl.structured import plain
from mtrl.training import Checkpoints, RunDirectory, load_state

from ..data.samples import BOTH, trajectories_of
from ..deployment.bench_suite import SUITE
from ..deployment.graphs import STEER, linear_artefact
from ..evaluation.samples import evaluation

SMALL = ["tasks=[point/obstacle]", "agent=sac", "agent.network.torso.width=16"]


@dataclass(frozen=True)
class Subject:
    """A format."""

    make: Callable[[Path], object]
    """Writes an example below a folder that is there."""
    behave: Callable[[Path], Any]
    """Reads it as commands do, and returns all that it can lead to."""
    proved: bool = False
    """Whether its content is proved by more than its hashes: another content with right hashes is refused."""
    tolerance: float = 0.0
    """Largest difference of numbers that counts as none."""


def _artefact(place: Path) -> Any:
    from mtrl.deployment import ArtefactPolicy

    report = verify(place / "artefact")
    policy = ArtefactPolicy(report.contents)
    draws = np.random.default_rng(5)
    size = report.manifest.state_size
    states = draws.normal(scale=3.0, size=(20, size)).astype(np.float32)
    return [plain(report.manifest), [policy.act(state, 0).copy() for state in states]]


def _make_run(place: Path) -> RunDirectory:
    return RunDirectory.create(place / "run", config=plain(compose(SMALL)))


def _config(place: Path) -> Any:
    config = recorded_config(RunDirectory.open(place / "run"), (), "evaluate")
    return [plain(config), task_set_of(config).names]


def _make_policy(place: Path) -> None:
    config = compose(SMALL)
    _, factory, settings = agent_of(config)
    tasks = task_set_of(config)
    agent: Any = factory.build(settings, tasks, 3, rank=0, ranks=1, parents={})
    save_policy(place / "teacher", agent.snapshot("evaluate"))


def _policy(place: Path) -> Any:
    tasks = task_set_of(compose(SMALL))
    snapshot, _ = load_policy(place / "teacher", tasks)
    policy = policy_from(snapshot, tasks)
    observation = tasks.layout.zeros(4)
    observation["state"][:] = np.linspace(-1, 1, observation["state"].size).reshape(
        observation["state"].shape
    )
    index, ended = np.zeros(4, dtype=np.int64), np.ones(4, dtype=np.bool_)
    draws = [np.random.default_rng(0) for _ in range(4)]
    action = policy.act(observation, index, policy.initial_state(4), ended, acting=Acting(), generators=draws)
    return [snapshot.version, action.continuous]


def _make_checkpoint(place: Path) -> None:
    state = {
        "format": 2,
        "steps": 10,
        "large": 2**100,
        "infinite": math.inf,
        "pair": (1, 2.5, None),
        "by task": {0: [1, 2], (1, 2): "both"},
        "weights": torch.arange(6.0).reshape(2, 3),
        "rows": np.arange(5),
        "complex": np.array([1 + 2j]),
        "names": np.array(["a", "bcd"]),
        "scalar": np.float32(0.1),
        "text": "ä",
    }
    Checkpoints(place / "run").save(10, state)


def _make_dataset(place: Path) -> None:
    write_dataset(place, dataset_id_of(BOTH), BOTH, trajectories_of(BOTH, [4, 1, 3]), {"seeds": [1, 2]})


def _make_shown(place: Path) -> None:
    run = _make_run(place).path
    write_result(run / "evaluations" / "teacher-1.json", evaluation())
    rows = [{"step": n, "loss": 1.0 / (n + 1), "success": {"a/b": 0.5}} for n in range(6)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cosines = {"step": 1, "part": "critic", "tasks": ["a/b", "a/c"], "cosines": [[1.0, -0.5], [-0.5, 1.0]]}
    (run / "cosines.jsonl").write_text(3 * (json.dumps(cosines) + "\n"))
    (run / "summary.json").write_text(json.dumps({"seconds": 3.5, "stages": {"train": 2}}))
    histogram = {"edges": [1.0, 2.0, 4.0], "counts": [2, 1]}
    latency = {
        "unit": "us",
        "samples_us_histogram": histogram,
        "p50": 1.5,
        "p99": 2.0,
        "max": 3.0,
        "calls": 3,
    }
    (run / "latency.json").write_text(json.dumps(latency))
    paths = {"policy": "bc", "paths": [[[0, 0], [1, 0.5]]], "obstacle": {"x": 0.5, "y": 0, "radius": 0.1}}
    (run / "point_paths.json").write_text(json.dumps([paths]))


SUBJECTS: Mapping[str, Subject] = {
    "artefact": Subject(
        lambda place: linear_artefact(place / "artefact", [SUITE.task("bench/point")], STEER),
        _artefact,
        proved=True,
        tolerance=1e-5,
    ),
    "config": Subject(_make_run, _config),
    "policy": Subject(_make_policy, _policy),
    "checkpoint": Subject(_make_checkpoint, lambda place: load_state(place / "run" / "checkpoints" / "10")),
    "dataset": Subject(
        _make_dataset, lambda place: vars(read_dataset(place, dataset_id_of(BOTH), BOTH)).copy()
    ),
    "result": Subject(
        lambda place: write_result(place / "result.json", evaluation()),
        lambda place: result_record(read_result(place / "result.json")),
    ),
    "shown": Subject(_make_shown, lambda place: repr(read_run(place / "run"))),
}
"""Format -> its example."""


def same(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two behaviours are equal: bit for bit, or numbers within a tolerance."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        return (
            np.allclose(one, other, rtol=0, atol=tolerance) if tolerance else one.tobytes() == other.tobytes()
        )
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key], tolerance) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(same(left, right, tolerance) for left, right in pairs)
    return type(one) is type(other) and (one == other or (one != one and other != other))
