"""One episode before the camera: an environment that offers every decision to a film."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from mtrl.errors import environment_faults
from mtrl.tasks import Environment, SelfTruncating, Task

from .captions import Moment, captioned
from .video_file import Frame, RealTime, VideoFile

Buffers = Mapping[str, npt.NDArray[np.generic]]
"""What an environment writes its observation into."""


class Shooting:
    """One episode before the camera: draws when a frame is due and keeps the caption's books."""

    def __init__(
        self,
        inner: Environment,
        label: str,
        task: Task,
        horizon: int,
        clock: RealTime,
        file: VideoFile,
        on_frame: Callable[[Frame, int, float], None] | None,
    ) -> None:
        self._inner, self._label, self._task, self._horizon = inner, label, task, horizon
        self._clock, self._file, self._on_frame = clock, file, on_frame
        self._decision, self._start, self._return, self._reward = 0, 0, 0.0, 0.0
        self._success = self._succeeded = False
        self._last: Frame | None = None
        self._drawn = -1
        self.environment = (
            _SelfTruncatingFilmed(inner, self) if isinstance(inner, SelfTruncating) else _Filmed(inner, self)
        )

    def begun(self, start: int) -> None:
        self._start = start
        self._write(self._clock.due(0, 0))

    def decided(self, reward: float, success: bool) -> None:
        self._decision += 1
        self._reward, self._return = reward, self._return + reward
        self._success, self._succeeded = success, self._succeeded or success
        self._write(self._clock.due(self._decision, self._file.frames))

    def finish(self) -> Frame:
        """The episode's true last picture, which ends the film."""
        if self._drawn != self._decision:
            self._write(1)
        assert self._last is not None, "a film begins with the first observation"
        return self._last

    def _write(self, times: int) -> None:
        if times == 0:
            return
        moment = Moment(
            self._label,
            self._task.name,
            self._start,
            self._decision,
            self._horizon,
            self._reward,
            self._return,
            self._success,
            self._succeeded,
        )
        with environment_faults(self._task.name, f"the picture after decision {self._decision}"):
            picture = self._inner.render()
        self._last = captioned(picture, moment)
        self._drawn = self._decision
        self._file.write(self._last, times)
        if self._on_frame is not None:
            self._on_frame(self._last, times, float(self._file.rate))


class _Filmed:
    """An environment whose every decision is offered to the camera."""

    def __init__(self, inner: Environment, shooting: Shooting) -> None:
        self._inner, self._shooting = inner, shooting

    def reset(self, start: int, out: Buffers) -> None:
        self._inner.reset(start, out)
        self._shooting.begun(start)

    def step(self, action: npt.NDArray[np.float32] | int, out: Buffers) -> tuple[float, bool, bool]:
        reward, terminated, success = self._inner.step(action, out)
        self._shooting.decided(float(reward), bool(success))
        return reward, terminated, success

    def render(self) -> npt.NDArray[np.uint8]:
        return self._inner.render()

    def close(self) -> None:
        self._inner.close()


class _SelfTruncatingFilmed(_Filmed):
    """The same for an environment with a clock of its own."""

    @property
    def truncated(self) -> bool:
        assert isinstance(self._inner, SelfTruncating)
        return self._inner.truncated
