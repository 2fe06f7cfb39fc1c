"""Policies that a run starts from: `init_from=RUN`, `reference=RUN`, `teacher=ARTEFACT`, `student=RUN`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from mtrl.deployment import artefact_snapshot, verify
from mtrl.errors import ConfigError, UnsupportedError
from mtrl.evaluation import read_kept, write_record
from mtrl.integrity import MANIFEST
from mtrl.rollout import Policy, PolicySnapshot, policy_from
from mtrl.tasks import TaskSet
from mtrl.training import PARENTS, RunDirectory

from .config import Config
from .session import load_policy

RECORD = "parents.json"
"""File of a run: key -> hash of the policy that it started from."""


def parents_of(
    config: Config, tasks: TaskSet, taken: Collection[str], run: Path | None = None
) -> dict[str, Policy]:
    """Key -> policy for the keys of `taken` that the configuration names.

    With `run` the policies are noted there, and a resumed run must meet the same again. Raises ConfigError
    for what holds no policy, for one that does not fit the tasks, and for another one than before.
    """
    found: dict[str, Policy] = {}
    hashes: dict[str, str] = {}
    for key in (key for key in PARENTS if key in taken and getattr(config, key)):
        snapshot, hashes[key] = load_parent(key, getattr(config, key))
        found[key] = policy_from(snapshot, tasks)
    if run is not None and hashes:
        _require_same(run / RECORD, hashes)
    return found


def require_parents(config: Config, name: str, taken: Collection[str]) -> None:
    """Raises UnsupportedError where the configuration names a parent that nobody takes."""
    for key in PARENTS:
        if getattr(config, key) and key not in taken:
            others = ", ".join(taken) or "none"
            raise UnsupportedError(
                f"{key}={getattr(config, key)}: agent {name!r} takes no {key} in these stages; policies that "
                f"it can start from: {others}"
            )


def load_parent(key: str, text: str) -> tuple[PolicySnapshot, str]:
    """The policy of a run or artefact, and its hash; `LABEL@RUN` names another than a run's first policy."""
    label, at, place = text.partition("@") if not Path(text).exists() else ("", "", text)
    path = Path(place if at or not label else text)
    if (path / MANIFEST).exists():
        return artefact_snapshot(path), verify(path).artefact
    run = RunDirectory.open(path)
    chosen = label or ("student" if key == "student" else "teacher")
    kept = run.path / "policies" / chosen
    if not kept.exists():
        there = sorted(folder.name for folder in (run.path / "policies").glob("*"))
        raise ConfigError(
            f"{key}={text}: {path} has no finished policy {chosen!r}; it has {', '.join(there) or 'none'}. "
            "Write LABEL@RUN for another one"
        )
    return load_policy(kept)


def _require_same(record: Path, hashes: Mapping[str, str]) -> None:
    known = read_kept(record)
    for key, value in hashes.items():
        if known.get(key, value) != value:
            raise ConfigError(
                f"{key} is another policy than the one this run started from ({value[:12]} against "
                f"{known[key][:12]}): it was trained further or replaced. Put the old one back, "
                "or begin a new run"
            )
    write_record(record, {**known, **hashes}, overwrite=True)
