"""Small task sets and results with numbers that are easy to follow."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from mtrl.deployment import EpisodeReport, Latency, RobotConfig
from mtrl.evaluation import EpisodeResult, EvaluationResult, PolicyReference, Provenance, from_episodes
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Score, Split, Task, TaskSet, start_id
from mtrl.videos.video_file import VideoFile
from mtrl.videos.video_record import Video, video_name, write_video_record

REACH, SWING = "metaworld/reach-v3", "dmc/cartpole-swingup"


def task(name: str, score: Score | None = None, horizon: int = 500) -> Task:
    """A task that differs from others in what the arguments say."""
    return Task(
        name=name,
        observation=ObservationSpec(state=39),
        action=ActionSpec(continuous=4),
        simulator_rate_hz=80.0,
        action_repeat=1,
        horizon_decisions=horizon,
        score=score or Score("success"),
        reward_version="v2",
    )


def task_set() -> TaskSet:
    """One task measured by success and one by its return, 1000 mapping to 1."""
    return TaskSet([task(REACH), task(SWING, Score("return", 0.0, 1000.0))])


def episode(
    name: str, index: int, success: bool, episode_return: float = 100.0, length: int = 50
) -> EpisodeResult:
    """The episode on the `index`-th test start; a success came at decision 10 + index."""
    return EpisodeResult(
        task=name,
        start=start_id(Split.TEST, index),
        episode_return=episode_return,
        success_any=success,
        success_end=success and index % 2 == 0,
        length=length,
        terminated=False,
        truncated=True,
        first_success=10 + index if success else None,
    )


def provenance() -> Provenance:
    """A fixed origin."""
    return Provenance(
        command="mtrl evaluate runs/sample episodes=4",
        created="2031-05-04T12:00:00Z",
        hardware="a processor, 2 processors",
        commit="0123abcd" * 5,
        packages={"numpy": "2.4.6", "python": "3.11.7"},
    )


def evaluation(
    label: str = "teacher",
    kind: str = "teacher",
    reach: Sequence[bool] = (True, True, True, False),
    swing: Sequence[bool] = (True, False),
    version: int = 0,
    tasks: TaskSet | None = None,
) -> EvaluationResult:
    """A result with the given outcomes on the first test starts of the two tasks."""
    chosen = tasks or task_set()
    outcomes = dict(zip(chosen.names, (reach, swing), strict=False))
    return from_episodes(
        chosen,
        [episode(n, i, success) for n, values in outcomes.items() for i, success in enumerate(values)],
        policy=PolicyReference(label, kind, "f00d" * 16, version),
        split=Split.TEST,
        seed=7,
        provenance=provenance(),
    )


def video(run: Path, label: str, task_name: str, start: int, success: bool = True) -> Video:
    """A video of five grey images with its poster and record, in a run's videos."""
    path = run / "videos" / video_name(label, task_name, start)
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoFile(path, Fraction(20)) as file:
        for shade in range(5):
            file.write(np.full((32, 32, 3), 40 * shade, dtype=np.uint8))
    made = Video(
        path=path,
        policy=PolicyReference(label, label, "f00d" * 16, 0),
        task=task_name,
        protocol_hash="1" * 16,
        start=start,
        episode_return=12.5,
        success=success,
        decisions=4,
        whole=True,
        frames=5,
        frames_per_second=20.0,
    )
    made.poster.write_bytes(b"an image of " + label.encode())
    write_video_record(made)
    return made


def latency(samples_us: Sequence[float]) -> Latency:
    """The deployment's summary of durations in microseconds."""
    return Latency.of(np.array(samples_us, dtype=np.float64) * 1e-6)


def deployment_report(name: str, ticks: int, misses: int, success: bool = True) -> EpisodeReport:
    """A real-time episode as the deployment reports it."""
    return EpisodeReport(
        task=name,
        mode="armed",
        start=2,
        seed=0,
        protocol_hash="0" * 16,
        artefact="cafe" * 16,
        robot=RobotConfig(),
        rate_hz=80.0,
        success=success,
        success_at_end=success,
        terminated=False,
        episode_return=1.0,
        decisions=ticks,
        ticks=ticks,
        deadline_misses=misses,
        skipped=0,
        held_ticks=0,
        final_state="RUN",
        robot_slips=0,
        command_timeouts=0,
        dropped=0,
        unsolved=0,
        limited=0,
        inference=latency([30.0, 40.0, 50.0]),
        observation_to_command=latency([100.0] * (ticks - 1) + [400.0]),
        log_complete=True,
        seconds=1.0,
        real_time_priority=False,
        servo=latency([60.0] * ticks),
        servo_missed=0,
        warnings=("normal priority",),
    )
