"""Records videos of evaluated episodes.

A video is made through the lane, the job and the batch that the evaluation uses: the episode of a start
has the same row among the same number of copies and the same random numbers, so that the video shows the
episode that was evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtrl import registry
from mtrl.atomic import atomic_file
from mtrl.errors import OutOfRangeError, UnsupportedError
from mtrl.evaluation.protocol import EvaluationConfig
from mtrl.evaluation.results import PolicyReference
from mtrl.faults import environment_faults
from mtrl.outcomes import outcome
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
from mtrl.tasks import Environment, SelfTruncating, Split, Task, TaskSet, start_id

from .captions import Moment, captioned
from .video_file import Frame, RealTime, VideoFile
from .video_record import Video, write_video_record

Buffers = Mapping[str, npt.NDArray[np.generic]]
"""What an environment writes its observation into."""

OnFrame = Callable[[Frame, int, float], None]
"""Receives each image, how many frames it lasts, and the frames per second."""


@dataclass(frozen=True)
class Subject:
    """A policy to record."""

    reference: PolicyReference
    snapshot: PolicySnapshot


class Recorder:
    """Records episodes of a task set; keeps the environments of the last task."""

    def __init__(self, tasks: TaskSet, protocol: EvaluationConfig) -> None:
        """`protocol` says which starts, seed and batch the evaluation has. Builds nothing yet."""
        self.tasks, self.protocol = tasks, protocol
        self._copies = min(protocol.copies, protocol.episodes)
        self._held: tuple[int, list[Environment]] = (-1, [])
        self._policy: tuple[PolicySnapshot, Policy] | None = None

    def require_images(self, chosen: Sequence[int]) -> None:
        """Renders each of the tasks once, without a step or a policy.

        Raises:
            UnsupportedError: a task cannot be rendered; the message says what to install.
            EnvironmentFault: its environment fails otherwise.
        """
        for k in chosen:
            task = self.tasks[k]
            if not registry.suite(task.suite).supports_starts:
                raise UnsupportedError(
                    f"suite {task.suite!r} cannot reset to a given start, so no evaluated episode of it "
                    "can be shown"
                )
            with environment_faults(task.name, "the first image"):
                environment = registry.environment(task)
                try:
                    environment.reset(start_id(Split.TEST, 0), _buffers(task))
                    environment.render()
                finally:
                    environment.close()

    def record(
        self,
        subject: Subject,
        k: int,
        index: int,
        path: Path,
        *,
        frames: int | None = None,
        on_decision: Callable[[], None] | None = None,
        on_frame: OnFrame | None = None,
    ) -> Video:
        """Records the `index`-th start of the protocol's split on task `k`, replacing an older video.

        `frames` ends the video after that many images. `on_decision` is called after every decision; what
        it raises ends the recording and leaves nothing behind. Raises as `require_images` does, and
        ResourceError when the video cannot be written.
        """
        if frames is not None and frames < 2:
            raise OutOfRangeError("frames", frames, "at least 2: the beginning and the end")
        task = replace(self.tasks[k], end_on_success=False)
        clock = RealTime(task.rate_hz)
        horizon = task.horizon_decisions
        if frames is not None:
            task = replace(task, horizon_decisions=min(horizon, clock.last_decision(frames)))
        row = index % self._copies
        split = Split[self.protocol.split.upper()]
        job = EpisodeJob(
            task_index=k,
            starts=tuple(start_id(split, index - row + copy) for copy in range(self._copies)),
            seed=self.protocol.seed,
            acting=Acting(plan=self.protocol.plan),
            copies=self._copies,
        )
        environments = list(self._environments(k))
        policy = self._rebuilt(subject.snapshot)
        with VideoFile(path, clock.frames_per_second) as file:
            kind = _SelfTruncatingRecorded if isinstance(environments[row], SelfTruncating) else _Recorded
            moment = Moment(subject.reference.label, task.name, horizon)
            recorded = kind(environments[row], moment, clock, file, on_frame)
            environments[row] = recorded
            lane = PythonLane(task, k, self.tasks.layout, environments, schedule_of(job))
            outcome = run_job(job, lane, policy, None if on_decision is None else lambda _: on_decision())
            poster = recorded.finish()
            # from here on an older record would describe another video
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
            whole=summary.terminated or task.horizon_decisions == horizon,
            frames=file.frames,
            frames_per_second=float(file.rate),
        )
        _write_image(video.poster, poster)
        write_video_record(video)
        return video

    def close(self) -> None:
        """Frees the simulators."""
        for environment in self._held[1]:
            environment.close()
        self._held = (-1, [])

    def _environments(self, k: int) -> list[Environment]:
        if self._held[0] != k:
            self.close()
            task = self.tasks[k]
            self._held = (k, [])
            for _ in range(self._copies):
                with environment_faults(task.name, "construction"):
                    self._held[1].append(registry.environment(task))
        return self._held[1]

    def _rebuilt(self, snapshot: PolicySnapshot) -> Policy:
        if self._policy is None or not self._policy[0].same_as(snapshot):
            self._policy = (snapshot, policy_from(snapshot, self.tasks))
        return self._policy[1]


class _Recorded:
    """An environment that writes an image to a video whenever a frame is due."""

    def __init__(
        self, inner: Environment, moment: Moment, clock: RealTime, file: VideoFile, on_frame: OnFrame | None
    ) -> None:
        self._inner, self._moment, self._clock = inner, moment, clock
        self._file, self._on_frame = file, on_frame
        self._last: tuple[int, Frame] | None = None

    def reset(self, start: int, out: Buffers) -> None:
        self._inner.reset(start, out)
        self._moment = replace(self._moment, start=start)
        self._write(self._clock.due(0, 0))

    def step(self, action: npt.NDArray[np.float32] | int, out: Buffers) -> tuple[float, bool, bool]:
        reward, terminated, success = outcome(self._inner.step(action, out))
        self._moment = self._moment.after(reward, success)
        self._write(self._clock.due(self._moment.decision, self._file.frames))
        return reward, terminated, success

    def render(self) -> npt.NDArray[np.uint8]:
        return self._inner.render()

    def close(self) -> None:
        self._inner.close()

    def finish(self) -> Frame:
        """The episode's true last image, which ends the video."""
        if self._last is None or self._last[0] != self._moment.decision:
            self._write(1)
        assert self._last is not None, "an image was just written"
        return self._last[1]

    def _write(self, times: int) -> None:
        if times == 0:
            return
        decision = self._moment.decision
        with environment_faults(self._moment.task, f"the image after decision {decision}"):
            image = self._inner.render()
        frame = captioned(image, self._moment)
        self._last = (decision, frame)
        self._file.write(frame, times)
        if self._on_frame is not None:
            self._on_frame(frame, times, float(self._file.rate))


class _SelfTruncatingRecorded(_Recorded):
    """The same for an environment that truncates its episodes itself."""

    @property
    def truncated(self) -> bool:
        assert isinstance(self._inner, SelfTruncating)
        return self._inner.truncated


def _buffers(task: Task) -> dict[str, npt.NDArray[np.generic]]:
    """Memory for one observation of the task."""
    shapes = {"state": task.observation.state, "pixels": task.observation.pixels}
    dtypes = {"state": np.float32, "pixels": np.uint8}
    return {name: np.zeros(shape, dtypes[name]) for name, shape in shapes.items() if shape is not None}


def _write_image(path: Path, image: Frame) -> None:
    import cv2

    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    with atomic_file(path) as partial:
        partial.write_bytes(encoded.tobytes())
