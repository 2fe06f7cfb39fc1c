"""What parent and worker process say to each other, and how tasks, policies, fragments and results look."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from mtrl import errors, registry
from mtrl.errors import ConfigError, EnvironmentFault, MtrlError
from mtrl.tasks import Task, TaskSet

from .episodes import STEP_FIELDS, Episodes, EpisodeSummary
from .fragment import STEP_ARRAYS, Fragment
from .job import EpisodeJob, JobResult
from .policy import Acting, PolicySnapshot, Version
from .worker import LaneAssignment

Arrays = dict[str, npt.NDArray[Any]]

_PLACE = ("task_index", "first_copy", "first_step", "epoch")
_ARRAYS = (*STEP_ARRAYS, "final_index")
_GROUPS = ("observations", "final_observations", "extras")


def describe_tasks(tasks: TaskSet) -> list[dict[str, Any]]:
    """Tasks by name and settings; the worker looks them up as this process did."""
    return [
        {
            "name": task.name,
            "options": dict(task.options),
            "end_on_success": task.end_on_success,
            "protocol": task.protocol_hash,
        }
        for task in tasks
    ]


def rebuild_tasks(described: list[dict[str, Any]]) -> TaskSet:
    """The tasks; raises ConfigError when they are others here, as when a suite was registered by hand."""
    found: list[Task] = []
    for entry in described:
        task = dataclasses.replace(
            registry.task(entry["name"], entry["options"]), end_on_success=entry["end_on_success"]
        )
        if task.protocol_hash != entry["protocol"]:
            raise ConfigError(
                f"task {task.name} is another one in a worker process: protocol {task.protocol_hash} against "
                f"{entry['protocol']}. A plug-in that runs in workers declares an entry point"
            )
        found.append(task)
    return TaskSet(found)


def describe_policy(snapshot: PolicySnapshot) -> tuple[dict[str, Any], Mapping[str, npt.NDArray[Any]]]:
    """Header and arrays of a snapshot."""
    header = {
        "kind": snapshot.kind,
        "config": dict(snapshot.config),
        "version": snapshot.version,
        "incarnation": snapshot.incarnation,
    }
    return header, snapshot.tensors


def rebuild_policy(header: Mapping[str, Any], arrays: Arrays) -> PolicySnapshot:
    """The inverse of `describe_policy`."""
    return PolicySnapshot(header["kind"], header["config"], arrays, header["version"], header["incarnation"])


def describe_share(share: LaneAssignment) -> list[int]:
    """A lane as a list of numbers."""
    return list(dataclasses.astuple(share))


def rebuild_share(numbers: list[int]) -> LaneAssignment:
    """The inverse of `describe_share`."""
    return LaneAssignment(*numbers)


def describe_fragment(fragment: Fragment) -> tuple[dict[str, Any], Arrays]:
    """Header and arrays of a fragment."""
    arrays: Arrays = {name: getattr(fragment, name) for name in _ARRAYS}
    for group in _GROUPS:
        arrays |= _ungrouped(group, getattr(fragment, group))
    place = {name: getattr(fragment, name) for name in _PLACE}
    return {**place, "policy_version": list(fragment.policy_version)}, arrays


def rebuild_fragment(header: Mapping[str, Any], arrays: Arrays) -> Fragment:
    """The inverse of `describe_fragment`."""
    parts: dict[str, Any] = {name: header[name] for name in _PLACE}
    parts |= {name: arrays[name] for name in _ARRAYS}
    parts |= {group: _grouped(group, arrays) for group in _GROUPS}
    return Fragment(policy_version=Version(*header["policy_version"]), **parts)


def describe_job(job: EpisodeJob) -> dict[str, Any]:
    """A job as plain values."""
    return dataclasses.asdict(job)


def rebuild_job(described: Mapping[str, Any]) -> EpisodeJob:
    """The inverse of `describe_job`."""
    lists = {name: tuple(described[name]) for name in ("starts", "repeats")}
    return EpisodeJob(**{**described, **lists, "acting": Acting(**described["acting"])})


def describe_result(result: JobResult) -> tuple[dict[str, Any], Arrays]:
    """Header and arrays of a result; the job itself stays with who gave it."""
    summaries = [dataclasses.asdict(summary) for summary in result.summaries]
    episodes = result.episodes
    if episodes is None:
        return {"summaries": summaries, "policy_version": None}, {}
    arrays: Arrays = {name: getattr(episodes, name) for name in ("offsets", *STEP_FIELDS)}
    arrays |= _ungrouped("observations", episodes.observations) | _ungrouped("extras", episodes.extras)
    return {"summaries": summaries, "policy_version": list(episodes.policy_version)}, arrays


def rebuild_result(job: EpisodeJob, header: Mapping[str, Any], arrays: Arrays) -> JobResult:
    """The inverse of `describe_result`."""
    summaries = tuple(EpisodeSummary(**summary) for summary in header["summaries"])
    if header["policy_version"] is None:
        return JobResult(job, summaries, None)
    episodes = Episodes(
        task_index=job.task_index,
        policy_version=Version(*header["policy_version"]),
        summaries=summaries,
        observations=_grouped("observations", arrays),
        extras=_grouped("extras", arrays),
        **{name: arrays[name] for name in ("offsets", *STEP_FIELDS)},
    )
    return JobResult(job, summaries, episodes)


def _ungrouped(group: str, named: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    return {f"{group}.{name}": rows for name, rows in named.items()}


def _grouped(group: str, arrays: Arrays) -> Arrays:
    prefix = f"{group}."
    return {name[len(prefix) :]: rows for name, rows in arrays.items() if name.startswith(prefix)}


def describe_error(error: MtrlError, trace: str) -> dict[str, Any]:
    """An error of ours as a header."""
    if isinstance(error, EnvironmentFault):
        return {"reply": "fault", "task": error.task, "when": error.when, "detail": error.detail}
    return {"reply": "mistake", "kind": type(error).__name__, "message": str(error), "trace": trace}


def describe_bug(trace: str) -> dict[str, Any]:
    """An error that nobody raised on purpose, as a header."""
    return {"reply": "bug", "trace": trace}


def rebuild_error(header: Mapping[str, Any]) -> Exception:
    """The inverse of `describe_error`, where a class that is not ours becomes MtrlError itself, and of
    `describe_bug`, which becomes RuntimeError.
    """
    if header["reply"] == "bug":
        return RuntimeError(f"a bug in a worker process:\n{header['trace']}")
    if header["reply"] == "fault":
        return EnvironmentFault(header["task"], header["when"], header["detail"])
    kind = getattr(errors, header["kind"], MtrlError)
    again: MtrlError = kind.__new__(kind)
    again.args = (header["message"],)
    again.add_note(f"raised in a worker process:\n{header['trace']}")
    return again
