"""What a viewer of an episode needs beside the picture: which task, start and decision, reward, success."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .video_file import Frame

NARROWEST = 320
"""Width in pixels that a picture is enlarged to, by a whole factor, so that the caption can be read."""
LINE = 20
"""Height of a line of the caption in pixels."""
MARGIN = 8
SIZE = 0.45
"""Scale of the font where the line fits."""
INK, SUCCESS, BACKGROUND = (232, 232, 232), (110, 220, 130), (24, 26, 30)
"""RGB."""


@dataclass(frozen=True)
class Moment:
    """What stands below one picture."""

    policy: str
    task: str
    start: int
    decision: int
    """Decisions made so far; 0 for the first observation."""
    horizon: int
    reward: float
    """Of the last decision."""
    episode_return: float
    """Sum of rewards so far."""
    success: bool
    """The success signal after the last decision."""
    succeeded: bool
    """The signal was on before, or is."""

    @property
    def lines(self) -> tuple[str, str]:
        """The caption."""
        signal = "SUCCESS" if self.success else "succeeded" if self.succeeded else ""
        played = (
            f"{self.decision}/{self.horizon}  reward {self.reward:+.3f}  return {self.episode_return:.2f}"
        )
        return f"{self.policy}  {self.task}  start {self.start}", f"{played}  {signal}".rstrip()


def captioned(picture: Frame, moment: Moment) -> Frame:
    """The picture, enlarged where it is small, above two lines of text; both sides even, as H.264 asks."""
    import cv2

    factor = max(1, -(-NARROWEST // picture.shape[1]))
    enlarged = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = enlarged.shape[:2]
    text = 2 * LINE + MARGIN
    whole = np.empty((_even(height + text), _even(width), 3), dtype=np.uint8)
    whole[...] = BACKGROUND
    whole[:height, :width] = enlarged
    for row, line in enumerate(moment.lines):
        colour = SUCCESS if row and moment.succeeded else INK
        baseline = height + (row + 1) * LINE - 3
        # OpenCV's letters are ASCII
        words = line.encode("ascii", "replace").decode()
        cv2.putText(
            whole,
            words,
            (MARGIN, baseline),
            cv2.FONT_HERSHEY_SIMPLEX,
            _scale(words, width),
            colour,
            1,
            cv2.LINE_AA,
        )
    return whole


def _scale(words: str, width: int) -> float:
    """The usual size, or the one at which the line fits between the margins."""
    import cv2

    (needed, _), _ = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, SIZE, 1)
    return SIZE * min(1.0, (width - 2 * MARGIN) / max(needed, 1))


def _even(length: int) -> int:
    return length + length % 2
