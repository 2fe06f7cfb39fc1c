"""Worker processes go on exactly where the state of a run was taken."""

from __future__ import annotations

import dataclasses
import os
import signal
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mtrl import registry
from mtrl.distributed import fragments_for
from mtrl.errors import UnsupportedError
from mtrl.rollout import CollectionConfig, Fragment, PolicySnapshot, PoolFragments, Processes, RuntimeConfig
from mtrl.training import load_state, save_state

from ..sweeps import sampled
from .test_fragments import assert_same

TASKS = ["metaworld/reach-v3", "dmc/cartpole-swingup", "gym/CartPole-v1"]
TRIAL = ["trial/walk", "trial/reach"]
RANDOM = PolicySnapshot("random")
SHARES = np.array([0.2, 0.2, 0.6])


def open_source(
    tasks: list[str], version: int = 0, seed: int = 3, workers: int = 2, delivery: str | None = None
) -> PoolFragments:
    """Costs so unequal that the first task is split between two processes."""
    source = fragments_for(
        registry.task_set(tasks, {"metaworld": {"horizon": 9}}),
        RuntimeConfig(workers=workers),
        CollectionConfig(copies=2, steps=6),
        dataclasses.replace(RANDOM, version=version),
        seed,
        step_seconds=[16.0, *[1.0] * (len(tasks) - 1)],
        delivery=delivery,  # type: ignore[arg-type]
    )
    assert isinstance(source, PoolFragments)
    return source


def learn(source: PoolFragments, done: int, count: int) -> list[Fragment]:
    """`count` fragments, each followed by a publication; `done` were taken before."""
    found: list[Fragment] = []
    for fragment in islice(source.stream(), count):
        found.append(fragment)
        source.publish(dataclasses.replace(RANDOM, version=done + len(found)))
    return found


# a day has both numbers of workers, and lanes both in turn and by shares
@pytest.mark.parametrize(
    ("workers", "shares"), sampled([(2, None), (2, SHARES), (1, SHARES), (1, None)], share=2)
)
def test_an_interrupted_run_delivers_what_an_uninterrupted_one_does(
    tmp_path: Path, workers: int, shares: npt.NDArray[np.float64] | None
) -> None:
    before, after = 5, 12
    whole = open_source(TASKS)
    if shares is not None:
        whole.set_shares(shares)
    assert len(whole.lanes[0]) + len(whole.lanes[1]) == 4
    expected = learn(whole, 0, before)
    save_state(tmp_path / "state", whole.state_dict())
    expected += learn(whole, before, after)
    whole.close()

    other = open_source(TASKS, before, seed=99, workers=workers)
    other.load_state_dict(load_state(tmp_path / "state"))
    if shares is not None:
        other.set_shares(shares)
    found = learn(other, before, after)
    other.close()
    for ours, theirs in zip(found, expected[before:], strict=True):
        assert_same(ours, theirs)
    versions = [f.policy_version for f in expected]
    assert len(set(versions)) > 6
    counts = np.bincount([f.task_index for f in expected], minlength=3)
    # the first task has two lanes
    assert counts.tolist() == ([9, 4, 4] if shares is None else [6, 3, 8])


def test_reopened_lanes_and_epochs_survive(trial_folder: Path) -> None:
    """One process was killed: its lanes are in a later epoch."""
    source = open_source(TRIAL)
    list(islice(source.stream(), 4))
    assert isinstance(source.backend, Processes)
    os.kill(source.backend.pids[0], signal.SIGKILL)
    list(islice(source.stream(), 8))
    again = open_source(TRIAL)
    again.load_state_dict(source.state_dict())
    ours, theirs = list(islice(again.stream(), 8)), list(islice(source.stream(), 8))
    source.close()
    again.close()
    assert {f.epoch for f in ours} == {0, 1}
    for a, b in zip(ours, theirs, strict=True):
        assert_same(a, b)


def test_what_cannot_be_continued_is_said(trial_folder: Path) -> None:
    arrival = open_source(TRIAL, delivery="arrival")
    assert len(list(islice(arrival.stream(), 6))) == 6
    with pytest.raises(UnsupportedError, match="by arrival cannot be continued"):
        arrival.state_dict()
    arrival.close()
    source = open_source(TRIAL)
    with pytest.raises(UnsupportedError, match="expected 2 of each"):
        source.load_state_dict({"supervisor": {}})
    source.close()
