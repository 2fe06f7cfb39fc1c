"""Everything a run directory holds that its report shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mtrl.deployment.realtime.latency import Latency
from mtrl.errors import ConfigError
from mtrl.evaluation.records import read_record
from mtrl.evaluation.result_file import results_of
from mtrl.evaluation.results import OWN, EvaluationResult, PolicyReference
from mtrl.run_directory import POLICIES, agent_settings, read_config
from mtrl.structured import flat
from mtrl.videos import Video, read_videos

from .conflict import Conflicts, find_conflicts
from .curves import Curves, find_curves
from .paths import PlannedTask, PolicyPaths, read_paths, read_plans
from .realtime import RealtimeEpisode, read_deployment, read_latency

Value = None | bool | int | float | str
"""A leaf of a configuration or summary."""


@dataclass(frozen=True)
class RunContents:
    """What was found; an absent part is empty."""

    name: str
    """Name of the run: that of its directory."""
    own: str
    """What its own policy is called: its agent."""
    config: tuple[tuple[str, Value], ...]
    """`config.yaml`, flattened to dotted keys, in the file's order."""
    summary: tuple[tuple[str, Value], ...]
    """`summary.json`, flattened to dotted keys, in the file's order."""
    curves: tuple[Curves, ...]
    evaluations: tuple[EvaluationResult, ...]
    """`evaluations/*.json`: teachers, students, behaviour cloning, the rest; newest version last."""
    deployments: tuple[RealtimeEpisode, ...]
    latency: Latency | None
    paths: tuple[PolicyPaths, ...]
    plans: tuple[PlannedTask, ...] = ()
    """`plans/*.json`."""
    videos: tuple[Video, ...] = ()
    """`videos/*.json` with their videos, by file name."""
    conflicts: Conflicts | None = None


def read_run(directory: Path) -> RunContents:
    """Reads a run directory.

    Raises:
        ConfigError: there is no such directory.
        IntegrityError: one of its files is truncated, edited or of another kind; the message names it.
    """
    if not directory.is_dir():
        raise ConfigError(f"there is no run directory {directory}; runs are folders below runs/")
    settings = agent_settings(directory)
    evaluations = [result for _, result in results_of(directory)]
    latency = directory / "latency.json"
    summary, paths = directory / "summary.json", directory / "point_paths.json"
    return RunContents(
        name=directory.resolve().name,
        own=PolicyReference(OWN, OWN, "", 0).by_agent(settings).shown,
        config=tuple(_read_config(directory / "config.yaml")),
        summary=tuple(_flatten(read_record(summary).fields)) if summary.is_file() else (),
        curves=find_curves(directory),
        evaluations=tuple(sorted(evaluations, key=_evaluation_order)),
        deployments=tuple(read_deployment(path) for path in sorted(directory.glob("deployments/*.json"))),
        latency=read_latency(latency) if latency.is_file() else None,
        paths=read_paths(paths) if paths.is_file() else (),
        plans=tuple(one for file in sorted(directory.glob("plans/*.json")) for one in read_plans(file)),
        videos=tuple(
            replace(video, policy=video.policy.by_agent(settings))
            for video in read_videos(directory / "videos")
        ),
        conflicts=find_conflicts(directory),
    )


def policy_order(policy: PolicyReference) -> tuple[int, str, int]:
    """Teachers, students, behaviour cloning, the rest; older versions first."""
    ranks = {known.label: known.headline for known in POLICIES}
    return ranks.get(policy.kind, len(ranks)), policy.label, policy.version


def _evaluation_order(result: EvaluationResult) -> tuple[int, str, int, str]:
    return *policy_order(result.policy), result.provenance.created


def _read_config(path: Path) -> Iterator[tuple[str, Value]]:
    if not path.is_file():
        return
    yield from _flatten(read_config(path))


def _flatten(values: Mapping[str, object]) -> Iterator[tuple[str, Value]]:
    for key, value in flat(values):
        if isinstance(value, list):
            yield key, ", ".join(map(str, value)) or "none"
        else:
            yield key, value if value is None or isinstance(value, bool | int | float | str) else str(value)
