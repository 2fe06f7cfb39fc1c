"""Policies that a run starts from: of another run, or of an artefact."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from mtrl import registry
from mtrl.deployment import read_manifest
from mtrl.errors import ConfigError, UnsupportedError
from mtrl.evaluation import read_saved, write_record
from mtrl.reading import reading
from mtrl.rollout import Policy, PolicySnapshot, policy_from
from mtrl.run_directory import split_label
from mtrl.structured import build
from mtrl.tasks import TaskSet
from mtrl.training import PARENTS, Checkpoints, RunDirectory

from .config import Config, TasksConfig
from .policies import load_artefact, load_policy

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
    for key in (key for key in PARENTS if key in taken and getattr(config, key)):
        found[key], hashes[key] = _load(key, getattr(config, key), tasks)
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


def _load(key: str, text: str, tasks: TaskSet) -> tuple[PolicySnapshot, str]:
    """The policy of a run or artefact, and its hash; `LABEL@RUN` names another policy than a run's first."""
    label, path = split_label(text)
    if (path / "manifest.json").exists():
        if label:
            raise ConfigError(
                f"{key}={text}: {path} is an artefact, which holds one policy; leave {label}@ out"
            )
        _require_tasks(key, text, [entry.name for entry in read_manifest(path).tasks], tasks)
        return load_artefact(path)
    run = RunDirectory.open(path)
    with reading(run.config_file, "the configuration of a run"):
        trained = registry.expanded(build(TasksConfig, run.read_config()["tasks"], "tasks").names)
    _require_tasks(key, text, trained, tasks)
    chosen = label or ("student" if key == "student" else "teacher")
    saved = run.policies / chosen
    if not saved.exists():
        there = sorted(folder.name for folder in run.policies.glob("*"))
        raise ConfigError(
            f"{key}={text}: {path} has no finished policy {chosen!r}; it has {', '.join(there) or 'none'}. "
            "Write LABEL@RUN for another one"
        )
    return load_policy(saved, tasks)


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
