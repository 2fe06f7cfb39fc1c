"""Policies to evaluate, record, export and start from: of a run, of an artefact, or scripted."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtrl import registry
from mtrl.deployment import artefact_snapshot, read_manifest, verify
from mtrl.errors import ConfigError, UnknownNameError
from mtrl.evaluation import PolicyReference
from mtrl.integrity import MANIFEST, verify_manifest
from mtrl.reading import reading
from mtrl.rollout import PolicySnapshot, policy_from
from mtrl.run_directory import agent_settings, split_label
from mtrl.structured import build
from mtrl.tasks import TaskSet
from mtrl.training import POLICIES, RunDirectory

from .config import TasksConfig

SCRIPTED = ("expert", "random")
"""Policies without weights, given by name."""
ARTEFACT = "artefact"
"""Kind of the policies that no run keeps: each is a directory of its own, which is verified."""


def save_policy(place: Path, snapshot: PolicySnapshot) -> None:
    """Keeps a finished policy with the common codec; replaces an older one."""
    from mtrl.training import save_state

    place.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.ascontiguousarray(value) for name, value in snapshot.tensors.items()}
    save_state(place, {**vars(snapshot), "tensors": tensors}, overwrite=True)


def load_policy(place: Path, tasks: TaskSet | None = None) -> tuple[PolicySnapshot, str]:
    """A kept snapshot and the hash that identifies it; with `tasks`, one that can be rebuilt for them.

    Raises IntegrityError for damage, and for a state that is no such policy.
    """
    from mtrl.training import load_state

    state = load_state(place)
    with reading(place, "a policy that a run keeps"):
        snapshot = PolicySnapshot(**state)
        if snapshot.kind == ARTEFACT:
            raise ValueError(f"a run keeps no policy of kind {snapshot.kind!r}")
        if min(snapshot.version, snapshot.incarnation) < 0:
            raise ValueError(f"its version is {snapshot.version!r}, {snapshot.incarnation!r}")
        if tasks is not None:
            policy_from(snapshot, tasks)
    return snapshot, verify_manifest(place)


def kept_policies(run: Path) -> list[str]:
    """Labels of the policies that the run has finished."""
    return [policy.label for policy in POLICIES if (run / "policies" / policy.label).exists()]


def chosen_policies(run: Path, labels: Sequence[str] | None) -> list[str]:
    """Labels of the finished policies of the run with these labels, or called so in tables, each once; all of
    them without labels.
    """
    kept = kept_policies(run)
    if not kept:
        raise ConfigError(f"{run} has no finished policy; train one first")
    settings = agent_settings(run)
    shown = {PolicyReference(label, label, "", 0).by_agent(settings).shown: label for label in kept}
    chosen = [shown.get(label, label) for label in labels or kept]
    for label in chosen:
        if label not in kept:
            raise UnknownNameError("policy of this run", label, list(dict.fromkeys([*shown, *kept])))
    return list(dict.fromkeys(chosen))


@dataclass(frozen=True)
class FoundPolicy:
    """A policy on disk that was named but not read yet."""

    place: Path
    """The folder of an artefact, or of a policy that a run keeps."""
    names: tuple[str, ...]
    """The tasks that it was made for, in order."""
    tasks: TasksConfig
    """The same with their settings."""
    source: Path
    """The file that names them."""
    exported: bool = False
    """Whether it is an artefact."""

    def load(self, tasks: TaskSet) -> tuple[PolicySnapshot, str]:
        """The policy and the hash that identifies it; refuses damage, and other tasks than it can play."""
        return load_artefact(self.place) if self.exported else load_policy(self.place, tasks)

    def task_set(self) -> TaskSet:
        """Its tasks; raises UntrustedCodeError where one imports a module that the user has not named."""
        registry.require_imports(self.names, self.source)
        return registry.task_set(list(self.tasks.names), self.tasks.options)


def find_policy(text: str, label: str = "teacher") -> FoundPolicy:
    """The policy of an artefact, of a run, that of `label`, or of LABEL@RUN.

    Raises ConfigError for what holds no policy, or none of that label.
    """
    given, path = split_label(text)
    if (path / "manifest.json").exists():
        if given:
            raise ConfigError(f"{path} is an artefact, which holds one policy; leave {given}@ out")
        entries = read_manifest(path).tasks
        tasks = TasksConfig(
            tuple(entry.name for entry in entries), {entry.name: dict(entry.options) for entry in entries}
        )
        return FoundPolicy(path, tasks.names, tasks, path / "manifest.json", exported=True)
    run = RunDirectory.open(path)
    with reading(run.config_file, "the configuration of a run"):
        tasks = build(TasksConfig, run.read_config()["tasks"], "tasks")
        names = registry.expanded(tasks.names)
    saved = run.policies / (given or label)
    if not saved.exists():
        there = sorted(folder.name for folder in run.policies.glob("*"))
        raise ConfigError(
            f"{path} has no finished policy {given or label!r}; it has {', '.join(there) or 'none'}. "
            "Write LABEL@RUN for another one"
        )
    return FoundPolicy(saved, names, tasks, run.config_file)


def is_scripted(what: Path) -> bool:
    """Whether a word is "expert" or "random" rather than the path of something."""
    return str(what) in SCRIPTED and not what.exists()


def is_artefact(what: Path) -> bool:
    """Whether a folder is an exported controller rather than a run."""
    return (what / MANIFEST).exists()


def artefact_of(what: Path) -> Path:
    """The artefact itself, or that of a run; raises ConfigError for a run that has none yet."""
    if is_artefact(what) or not (what / "config.yaml").exists():
        return what
    artefact = RunDirectory.open(what).artefact
    if not is_artefact(artefact):
        raise ConfigError(
            f"{what} has no artefact yet; export one first: {shlex.join(['mtrl', 'export', str(what)])}"
        )
    return artefact


def artefact_tasks(artefact: Path) -> TaskSet:
    """The tasks that an artefact was made for; reads its manifest alone.

    Raises UntrustedCodeError where building one imports a module that the user has not named.
    """
    entries = read_manifest(artefact).tasks
    registry.require_imports([entry.name for entry in entries], artefact)
    return TaskSet([registry.task(entry.name, dict(entry.options)) for entry in entries])


def load_artefact(artefact: Path) -> tuple[PolicySnapshot, str]:
    """The graph as a policy in lock-step with the simulation, and its hash; refuses damage."""
    verified = verify(artefact)
    return artefact_snapshot(verified.contents), verified.artefact
