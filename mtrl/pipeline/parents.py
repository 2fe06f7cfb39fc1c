"""Policies that a run starts from: of another run, or of an artefact."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from mtrl.errors import ConfigError, UnsupportedError
from mtrl.evaluation import read_saved, write_record
from mtrl.rollout import Policy, PolicySnapshot, policy_from
from mtrl.tasks import TaskSet
from mtrl.training import PARENTS, AdoptsTasks, Checkpoints

from .config import Config, agent_of
from .policies import find_policy

RECORD = "parents.json"
"""File next to a policy's checkpoints: key -> hash of the policy that its training started from."""


def parents_of(
    config: Config, tasks: TaskSet, taken: Collection[str], place: Path | None = None
) -> dict[str, Policy]:
    """Key -> policy for the keys of `taken` that the configuration names; see `parent_snapshots`."""
    found = parent_snapshots(config, tasks, taken, place)
    return {key: policy_from(snapshot, tasks) for key, snapshot in found.items()}


def parent_snapshots(
    config: Config, tasks: TaskSet, taken: Collection[str], place: Path | None = None
) -> dict[str, PolicySnapshot]:
    """Key -> policy as data for the keys of `taken` that the configuration names.

    With `place` their hashes are recorded there, and a resumed training must have the same again. Raises
    ConfigError for what holds no policy, for one of other tasks, and for another one than before.
    """
    found: dict[str, PolicySnapshot] = {}
    hashes: dict[str, str] = {}
    _, factory, _ = agent_of(config)
    for key in (key for key in PARENTS if key in taken and getattr(config, key)):
        adopts = factory if key == "init_from" and isinstance(factory, AdoptsTasks) else None
        found[key], hashes[key] = _load(key, getattr(config, key), tasks, factory.name, adopts)
    if place is not None:
        _require_same(place, hashes)
    return found


def require_parents(config: Config, name: str, taken: Collection[str]) -> None:
    """Raises UnsupportedError where the configuration names a parent that no stage takes."""
    for key in PARENTS:
        if getattr(config, key) and key not in taken:
            raise UnsupportedError(
                f"{key}={getattr(config, key)}: agent {name!r} takes no {key} in these stages; policies that "
                f"it can start from: {', '.join(taken) or 'none'}"
            )


def _load(
    key: str, text: str, tasks: TaskSet, agent: str, adopts: AdoptsTasks | None
) -> tuple[PolicySnapshot, str]:
    """The policy of a run or artefact, and its hash; `LABEL@RUN` names another policy than a run's first. One
    of other tasks is adopted where it is of this agent, and that can.
    """
    try:
        found = find_policy(text, "student" if key == "student" else "teacher")
    except ConfigError as error:
        raise ConfigError(f"{key}={text}: {error}") from error
    if adopts is not None and tuple(found.names) != tuple(tasks.names) and not found.exported:
        theirs = found.task_set()
        snapshot, identity = found.load(theirs)
        if snapshot.kind == agent:
            return adopts.adopted(snapshot, theirs, tasks), identity
    _require_tasks(key, text, found.names, tasks)
    return found.load(tasks)


def _require_tasks(key: str, text: str, trained: Collection[str], tasks: TaskSet) -> None:
    """Checks names: a policy identifies tasks by index, so other tasks of equal sizes would be accepted."""
    if tuple(trained) != tuple(tasks.names):
        raise ConfigError(
            f"{key}={text} is a policy of {', '.join(trained)}; expected one of {', '.join(tasks.names)}, in "
            "this order"
        )


def _require_same(place: Path, hashes: dict[str, str]) -> None:
    """Records the parents of a training that begins, and compares those of one that continues."""
    known = read_saved(place / RECORD) if Checkpoints(place).steps() else hashes
    for key in {*known, *hashes}:
        if known.get(key) != hashes.get(key):
            was, now = (held.get(key, "none")[:12] for held in (known, hashes))
            raise ConfigError(
                f"{key} is another policy than the one that this training started from ({now} against "
                f"{was}): it is not named, or was trained further or replaced. Name the same again, or begin "
                "again with --overwrite"
            )
    if hashes:
        write_record(place / RECORD, {**hashes}, overwrite=True)
