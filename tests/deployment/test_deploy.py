"""Whole deployments: four processes, real time, the bench's point and a linear policy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mtrl.deployment import (
    DeploymentReport,
    EpisodeReport,
    RobotConfig,
    compatible_task,
    deploy,
    read_flight,
    read_manifest,
    replay,
)
from mtrl.deployment.realtime.records import Column
from mtrl.errors import (
    ConfigError,
    EnvironmentFault,
    ExistsError,
    GuardError,
    IntegrityError,
    UnknownNameError,
)
from mtrl.tasks import Option

from .bench_suite import BenchSuite
from .graphs import STEER, linear_artefact

ROBOT = RobotConfig(settle_decisions=3)
PATIENT = dataclasses.replace(
    ROBOT,
    stale_limit_ms=1000.0,
    inference_deadline_ms=1000.0,
    command_timeout_ms=1000.0,
    proposal_periods=50.0,
)
"""For what must hold on a machine that is busy with other things too."""
LONG: dict[str, Option] = {"horizon": 200}


def run_episode(bench: BenchSuite, tmp_path: Path, options: dict[str, Option]) -> DeploymentReport:
    """One episode of the point, with a fault at its fifth step."""
    linear_artefact(tmp_path / "artefact", [bench.task("bench/point", {**LONG, **options})], STEER)
    return deploy(tmp_path / "artefact", ROBOT, ["bench/point"], [2], 0, tmp_path)


def test_a_good_policy_succeeds_on_every_task_and_its_log_is_whole(bench: BenchSuite, tmp_path: Path) -> None:
    tasks = [bench.task("bench/point", LONG), bench.task("bench/twin", LONG)]
    root = linear_artefact(tmp_path / "artefact", tasks, STEER)
    seen: list[EpisodeReport] = []
    report = deploy(
        tmp_path / "artefact",
        PATIENT,
        ["bench/point", "bench/twin", "bench/point"],
        [2, 5, 3],
        0,
        tmp_path,
        on_episode=seen.append,
    )
    assert report.artefact == root
    assert [episode.task for episode in report.episodes] == ["bench/point", "bench/twin", "bench/point"]
    assert [Path(episode.log).stem for episode in report.episodes] == [
        "bench-point",
        "bench-twin",
        "bench-point-2",
    ]
    assert report.successes == 3
    assert seen == list(report.episodes)
    for episode in report.episodes:
        assert episode.ticks == episode.decisions <= 200
        assert episode.log_complete
        assert episode.final_state == "RUN"
        flight = read_flight(Path(episode.log))
        assert replay(flight)[0].tobytes() == flight.command.tobytes()
        assert len(np.unique(flight.column(Column.TICK))) == episode.ticks - episode.skipped
        stored = json.loads(Path(episode.log).with_suffix(".json").read_text())
        assert stored["success"] is True
        assert stored["deadline_misses"] == episode.deadline_misses
        histogram = stored["latency"]["samples_us_histogram"]
        assert sum(histogram["counts"]) == episode.inference.samples > 0
        assert len(histogram["edges"]) == len(histogram["counts"]) + 1


def test_an_exception_in_the_simulator_is_shown_with_its_traceback(bench: BenchSuite, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="the gearbox fell off") as raised:
        run_episode(bench, tmp_path, {"fault": "raise"})
    assert raised.value.task == "bench/point"
    assert "in step" in raised.value.detail


def test_a_robot_process_that_vanishes_is_an_error_and_not_a_wait(bench: BenchSuite, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="exit status 7"):
        run_episode(bench, tmp_path, {"fault": "exit"})


def test_one_bad_observation_is_held_and_recovered_from(bench: BenchSuite, tmp_path: Path) -> None:
    episode = run_episode(bench, tmp_path, {"fault": "nan"}).episodes[0]
    assert episode.held_ticks >= 1
    assert episode.final_state == "RUN"
    assert episode.success
    assert episode.log_complete
    causes = [change.cause for change in read_flight(Path(episode.log)).transitions]
    assert "OBSERVATION_NOT_FINITE" in causes


def test_a_robot_that_freezes_is_met_with_hold_commands(bench: BenchSuite, tmp_path: Path) -> None:
    episode = run_episode(bench, tmp_path, {"fault": "freeze"}).episodes[0]
    assert episode.robot_slips >= 1
    assert episode.held_ticks >= 1
    assert episode.success
    causes = [change.cause for change in read_flight(Path(episode.log)).transitions]
    assert "STALE_OBSERVATION" in causes


def test_another_protocol_is_refused_before_anything_moves(bench: BenchSuite, tmp_path: Path) -> None:
    linear_artefact(tmp_path / "artefact", [bench.task("bench/point")], STEER)
    manifest = read_manifest(tmp_path / "artefact")
    stale = dataclasses.replace(manifest.tasks[0], protocol_hash="0" * 16)
    with pytest.raises(GuardError, match="protocol 0000000000000000"):
        compatible_task(dataclasses.replace(manifest, tasks=(stale,)), "bench/point")


def test_a_tampered_artefact_is_refused_before_anything_moves(bench: BenchSuite, tmp_path: Path) -> None:
    linear_artefact(tmp_path / "artefact", [bench.task("bench/point")], STEER)
    with (tmp_path / "artefact" / "policy.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(IntegrityError, match=r"policy\.onnx"):
        deploy(tmp_path / "artefact", ROBOT, ["bench/point"], [2], 0, tmp_path)
    assert not (tmp_path / "deployments").exists()


def test_results_are_not_overwritten_unasked(bench: BenchSuite, tmp_path: Path) -> None:
    linear_artefact(tmp_path / "artefact", [bench.task("bench/point")], STEER)
    (tmp_path / "deployments").mkdir()
    (tmp_path / "deployments" / "bench-point.json").write_text("{}")
    with pytest.raises(ExistsError, match=r"bench-point\.json"):
        deploy(tmp_path / "artefact", ROBOT, ["bench/point"], [2], 0, tmp_path)


def test_a_flight_that_replaces_one_of_more_episodes_leaves_none_of_its_logs(
    bench: BenchSuite, tmp_path: Path
) -> None:
    run_episode(bench, tmp_path, {})
    place = tmp_path / "deployments"
    for stale in ("bench-point-2", "bench-point-3", "bench-other", "bench-other-2"):
        for suffix in (".json", ".mcap"):
            (place / f"{stale}{suffix}").touch()
    deploy(tmp_path / "artefact", ROBOT, ["bench/point"], [2], 0, tmp_path, overwrite=True)
    assert sorted(path.stem for path in place.glob("*.mcap")) == [
        "bench-other",
        "bench-other-2",
        "bench-point",
    ]
    assert sorted(path.stem for path in place.glob("*.json")) == [
        "bench-other",
        "bench-other-2",
        "bench-point",
    ]


def test_wrong_requests_are_refused(bench: BenchSuite, tmp_path: Path) -> None:
    linear_artefact(tmp_path / "artefact", [bench.task("bench/point")], STEER)
    with pytest.raises(ConfigError, match="one start per task"):
        deploy(tmp_path / "artefact", ROBOT, ["bench/point"], [2, 3], 0, tmp_path)
    with pytest.raises(UnknownNameError, match="bench/point"):
        deploy(tmp_path / "artefact", ROBOT, ["bench/pont"], [2], 0, tmp_path)
    unknown = dataclasses.replace(ROBOT, name="simm")
    with pytest.raises(ConfigError, match="no shadow of it"):
        deploy(tmp_path / "artefact", ROBOT, ["bench/point"], [2], 0, tmp_path, mode="shadow")
    with pytest.raises(UnknownNameError, match="'sim'"):
        deploy(tmp_path / "artefact", unknown, ["bench/point"], [2], 0, tmp_path)
