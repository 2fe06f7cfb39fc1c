"""Films of evaluated episodes.

A film is made through the lane, the job and the batch that the evaluation uses: the episode of a start
has the same row among the same number of copies and the same random numbers, so that what is seen is
what was judged.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtrl import registry
from mtrl.errors import OutOfRangeError, UnsupportedError, environment_faults
from mtrl.evaluation.protocol import EvaluationConfig
from mtrl.evaluation.results import PolicyReference
from mtrl.rollout import (
    Acting,
    EpisodeJob,
    Policy,
    PolicySnapshot,
    PythonLane,
    policy_from,
    run_job,
    schedule_of,
)
from mtrl.tasks import Environment, Split, Task, TaskSet, start_id

from .recorded_episode import Shooting
from .video_file import Frame, RealTime, VideoFile
from .video_record import Video, write_video_record


@dataclass(frozen=True)
class Subject:
    """A policy in front of the camera."""

    reference: PolicyReference
    snapshot: PolicySnapshot


class Recorder:
    """Films episodes of a task set; keeps the environments of the task it filmed last."""

    def __init__(self, tasks: TaskSet, protocol: EvaluationConfig) -> None:
        """`protocol` says which starts, seed and batch the evaluation has. Builds nothing yet."""
        self.tasks, self.protocol = tasks, protocol
        self._copies = min(protocol.copies, protocol.episodes)
        self._held: tuple[int, list[Environment]] = (-1, [])
        self._policy: tuple[PolicySnapshot, Policy] | None = None

    def require_pictures(self, chosen: Sequence[int]) -> None:
        """Draws each of the tasks once; raises UnsupportedError, saying what to install, if one cannot be.

        Steps nothing and needs no policy. Raises EnvironmentFault for an environment that fails otherwise.
        """
        for k in chosen:
            task = self.tasks[k]
            if not registry.suite(task.suite).supports_starts:
                raise UnsupportedError(
                    f"suite {task.suite!r} cannot honour starts, so no evaluated episode of it can be shown"
                )
            with environment_faults(task.name, "the first picture"):
                environment = registry.suite(task.suite).environment(task)
                try:
                    environment.reset(start_id(Split.TEST, 0), _buffers(task))
                    environment.render()
                finally:
                    environment.close()

    def film(
        self,
        subject: Subject,
        k: int,
        index: int,
        path: Path,
        *,
        frames: int | None = None,
        on_decision: Callable[[], None] | None = None,
        on_frame: Callable[[Frame, int, float], None] | None = None,
    ) -> Video:
        """Films the `index`-th start of the protocol's split on task `k`, replacing an older video.

        `frames` ends the film after that many pictures. `on_decision` is called after every decision; what
        it raises ends the film and leaves nothing behind. `on_frame` sees each picture, how many frames it
        lasts, and the frames per second. Raises as `require_pictures` does, and ResourceError when the
        video cannot be written.
        """
        if frames is not None and frames < 2:
            raise OutOfRangeError("frames", frames, "at least 2: the beginning and the end")
        task = replace(self.tasks[k], end_on_success=False)
        clock = RealTime(task.rate_hz)
        whole_horizon = task.horizon_decisions
        if frames is not None:
            task = replace(task, horizon_decisions=min(whole_horizon, clock.last_decision(frames)))
        row = index % self._copies
        split = Split[self.protocol.split.upper()]
        job = EpisodeJob(
            task_index=k,
            starts=tuple(start_id(split, index - row + copy) for copy in range(self._copies)),
            seed=self.protocol.seed,
            acting=Acting(plan=self.protocol.plan),
            copies=self._copies,
        )
        environments = list(self._take(k))
        policy = self._rebuilt(subject.snapshot)
        with VideoFile(path, clock.frames_per_second) as file:
            shooting = Shooting(
                environments[row], subject.reference.label, task, whole_horizon, clock, file, on_frame
            )
            environments[row] = shooting.environment
            lane = PythonLane(task, k, self.tasks.layout, environments, schedule_of(job))
            outcome = run_job(job, lane, policy, None if on_decision is None else lambda _: on_decision())
            poster = shooting.finish()
            # From here on an older record would describe another film.
            path.with_suffix(".json").unlink(missing_ok=True)
        summary = outcome.summaries[row]
        video = Video(
            path=path,
            policy=subject.reference,
            task=task.name,
            protocol_hash=self.tasks[k].protocol_hash,
            start=summary.start,
            episode_return=summary.episode_return,
            success=summary.success_any if task.score.kind == "success" else None,
            decisions=summary.length,
            whole=summary.terminated or task.horizon_decisions == whole_horizon,
            frames=file.frames,
            frames_per_second=float(file.rate),
        )
        _write_picture(video.poster, poster)
        write_video_record(video)
        return video

    def close(self) -> None:
        """Frees the simulators."""
        for environment in self._held[1]:
            environment.close()
        self._held = (-1, [])

    def _take(self, k: int) -> list[Environment]:
        if self._held[0] != k:
            self.close()
            task = self.tasks[k]
            self._held = (k, [])
            for _ in range(self._copies):
                with environment_faults(task.name, "construction"):
                    self._held[1].append(registry.suite(task.suite).environment(task))
        return self._held[1]

    def _rebuilt(self, snapshot: PolicySnapshot) -> Policy:
        if self._policy is None or not self._policy[0].same_as(snapshot):
            self._policy = (snapshot, policy_from(snapshot, self.tasks))
        return self._policy[1]


def _buffers(task: Task) -> dict[str, npt.NDArray[np.generic]]:
    """Room for one observation of the task."""
    buffers: dict[str, npt.NDArray[np.generic]] = {}
    if task.observation.state is not None:
        buffers["state"] = np.zeros(task.observation.state, dtype=np.float32)
    if task.observation.pixels is not None:
        buffers["pixels"] = np.zeros(task.observation.pixels, dtype=np.uint8)
    return buffers


def _write_picture(path: Path, picture: Frame) -> None:
    import cv2

    encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.partial.jpg")
    try:
        partial.write_bytes(encoded.tobytes())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
