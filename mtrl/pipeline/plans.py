"""What policies that plan states expected, beside what came of it: played for the report."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mtrl.evaluation import Json, read_saved, write_record
from mtrl.rollout import Acting, ChunkPolicy, EpisodeJob, Episodes, PolicySnapshot, policy_from
from mtrl.tasks import Split, start_id

from .session import Session

EPISODES = 2
"""Test starts of each task that are played."""
DECISIONS = 200
"""Decisions of an episode that are kept."""


def record_plans(session: Session, snapshot: PolicySnapshot, label: str, identity: str) -> None:
    """Plays the first test starts of every task and writes `plans/LABEL.json`, unless it is there or the
    policy plans no states.
    """
    policy, tasks, protocol = policy_from(snapshot, session.tasks), session.tasks, session.config.evaluation
    if not isinstance(policy, ChunkPolicy) or not policy.sampler.spec.planned:
        return
    file = session.run.path / "plans" / f"{label}.json"
    if file.exists() and read_saved(file).get("identity") == identity:
        return
    starts = tuple(start_id(Split.TEST, index) for index in range(EPISODES))
    jobs = [
        EpisodeJob(k, starts, protocol.seed, Acting(plan=protocol.plan), copies=EPISODES, record=True)
        for k in range(len(tasks))
    ]
    stride = policy.sampler.spec.stride
    drawn: list[Json] = []
    with session.stopping_at_once(f"drawing plans of {label}"):
        for result in session.rollouts.run(jobs, snapshot):
            assert result.episodes is not None, "the job records"
            drawn.append({"task": tasks[result.job.task_index].name, **plans_of(result.episodes, stride)})
    write_record(file, {"policy": label, "identity": identity, "tasks": drawn}, overwrite=True)


def plans_of(episodes: Episodes, stride: int) -> dict[str, Json]:
    """Paths in the two dimensions that move most within episodes, every plan made on the way, and `error`:
    how far planned states are from those that came, over how far these are from the state that was planned in
    (root of the mean square, of what was planned up to an episode's end).
    """
    states = episodes.observations["state"].astype(np.float64)
    apart = np.split(states, episodes.offsets[1:-1] + np.arange(1, len(episodes.offsets) - 1))
    first, second = pair = widest(np.concatenate([path - path.mean(axis=0) for path in apart]))
    played: list[Json] = []
    missed = moved = 0.0
    for e, (begin, end) in enumerate(pairwise(episodes.offsets)):
        path = states[begin + e : end + e + 1]
        plans: list[Json] = []
        for t in np.flatnonzero(episodes.extras["plan_age"][begin:end] == 0).tolist():
            plan = episodes.extras["plan"][begin + t]
            at = t + stride * np.arange(1, len(plan) + 1)
            came = path[at[at < len(path)]][:, pair]
            missed += float(((plan[: len(came), pair] - came) ** 2).sum())
            moved += float(((path[t, pair] - came) ** 2).sum())
            if t < DECISIONS:
                plans.append(_rounded(np.concatenate([path[t : t + 1, pair], plan[:, pair]])))
        played.append({"path": _rounded(path[:DECISIONS, pair]), "plans": plans})
    error = float(np.sqrt(missed / moved)) if moved else 0.0
    return {"dimensions": [first, second], "error": round(error, 4), "episodes": played}


def widest(states: npt.NDArray[np.float64]) -> list[int]:
    """Two dimensions of states [T, D]: the one that varies most, and the one of which most is left where the
    first is known; the same twice where there is one.
    """
    moves = states - states.mean(axis=0)
    variance = (moves**2).sum(axis=0)
    first = int(variance.argmax())
    if variance[first] == 0.0:
        return [0, min(1, states.shape[1] - 1)]
    left = variance - (moves.T @ moves[:, first]) ** 2 / variance[first]
    left[first] = -1.0
    return [first, int(left.argmax())]


def _rounded(points: npt.NDArray[np.floating]) -> list[Json]:
    return [[round(float(value), 4) for value in point] for point in points]
