"""Writing a video: H.264 that browsers play, at the pace of the task, whole under its name or not there."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.atomic import atomic_file
from mtrl.errors import ConfigError, ResourceError

Frame = npt.NDArray[np.uint8]
"""An RGB image [height, width, 3]."""

FASTEST = 30
"""Most frames a second; an image of a MuJoCo scene costs 0.1 s without a GPU, a decision 0.001 s."""
SLOWEST = 10
"""Fewest frames a second; below it players stutter when one seeks."""

# Small and readable: constant quality, one thread next to the simulation, no stamp of the encoder's
# build, and the index in front, so that a player starts before it has read the whole file.
_ENCODING = ["-crf", "24", "-preset", "veryfast", "-threads", "1", "-bitexact", "-movflags", "+faststart"]


def frames_per_second(rate_hz: float) -> Fraction:
    """The pace of a video of a task that decides `rate_hz` times a second: its own, kept in 10 to 30."""
    if rate_hz <= 0:
        raise ConfigError(f"a rate is above 0 Hz; got {rate_hz}")
    return min(max(Fraction(rate_hz).limit_denominator(1000), Fraction(SLOWEST)), Fraction(FASTEST))


class RealTime:
    """How often each decision's image is shown so that a second of video is a second of simulation.

    The image after decision t stands at t / rate seconds. A task faster than the video skips images,
    a slower one repeats them.
    """

    def __init__(self, rate_hz: float) -> None:
        """`rate_hz`: decisions per simulated second."""
        self.frames_per_second = frames_per_second(rate_hz)
        self._per_decision = self.frames_per_second / Fraction(rate_hz).limit_denominator(1000)

    def due(self, decision: int, shown: int) -> int:
        """Frames to write after `decision` (0: the first observation) when `shown` are written, 0 or more."""
        return max(0, int(decision * self._per_decision) + 1 - shown)

    def last_decision(self, frames: int) -> int:
        """The last decision that a video of `frames` images, at least 2, can show."""
        among = Fraction(frames - 1) / self._per_decision
        return max(1, math.ceil(among) if self._per_decision <= 1 else math.floor(among))


class VideoFile:
    """An MP4 file (H.264, yuv420p), written under a temporary name and renamed when it is finished.

    Use as a context manager: a block that raises, Ctrl-C included, leaves nothing behind and an older
    video in its place.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        """`rate` in frames per second. Raises ConfigError for another ending than .mp4."""
        if path.suffix != ".mp4":
            raise ConfigError(f"a video is written as MP4; name it with the ending .mp4, not {path.name!r}")
        self.path, self.rate = path, rate
        self.frames = 0
        """Frames written so far."""
        self._writer: Any = None
        self._file = atomic_file(path)

    def __enter__(self) -> VideoFile:
        self._partial = self._file.__enter__()
        return self

    def write(self, frame: Frame, times: int = 1) -> None:
        """Appends a frame; every frame has the size of the first, both sides even."""
        if self._writer is None:
            self._writer = self._open()
        for _ in range(times):
            self._guarded(lambda: self._writer.append_data(frame))
            self.frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None and kind is None:
                self._guarded(self._writer.close)
            elif self._writer is not None:
                # the first error is raised, not that of an encoder which cannot finish because of it
                with contextlib.suppress(OSError):
                    self._writer.close()
        except BaseException as failure:
            self._file.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._file.__exit__(kind, error, trace)

    def _open(self) -> Any:  # noqa: ANN401 - imageio gives its writers no type of their own
        import imageio.v2

        return imageio.v2.get_writer(
            self._partial,
            format="FFMPEG",
            fps=self.rate,
            codec="libx264",
            pixelformat="yuv420p",
            quality=None,
            macro_block_size=2,
            output_params=list(_ENCODING),
        )

    def _guarded(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            raise ResourceError(
                f"{self.path} could not be encoded ({error}); look for free space and for the package "
                "imageio-ffmpeg, then record it again"
            ) from error
