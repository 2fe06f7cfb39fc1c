"""The caption below an image of an episode: policy, task, start, decision, reward, success."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .video_file import Frame

NARROWEST = 320
"""Width in pixels that an image is enlarged to, by a whole factor, so that the caption can be read."""
LINE = 20
"""Height of a line of the caption in pixels."""
MARGIN = 8
SIZE = 0.45
"""Scale of the font where the line fits."""
INK, SUCCESS, BACKGROUND = (232, 232, 232), (110, 220, 130), (24, 26, 30)
"""RGB."""


@dataclass(frozen=True)
class Moment:
    """What the caption of one image says."""

    policy: str
    task: str
    horizon: int
    start: int = 0
    decision: int = 0
    """Decisions made so far; 0 for the first observation."""
    reward: float = 0.0
    episode_return: float = 0.0
    """Sum of rewards so far."""
    success: bool = False
    """The success signal after the last decision."""
    succeeded: bool = False
    """Whether the signal was ever on."""

    def after(self, reward: float, success: bool) -> Moment:
        """The moment after one more decision."""
        return replace(
            self,
            decision=self.decision + 1,
            reward=reward,
            episode_return=self.episode_return + reward,
            success=success,
            succeeded=self.succeeded or success,
        )

    @property
    def lines(self) -> tuple[str, str]:
        """The caption."""
        signal = "SUCCESS" if self.success else "succeeded" if self.succeeded else ""
        progress = (
            f"{self.decision}/{self.horizon}  reward {self.reward:+.3f}  return {self.episode_return:.2f}"
        )
        return f"{self.policy}  {self.task}  start {self.start}", f"{progress}  {signal}".rstrip()


def captioned(image: Frame, moment: Moment) -> Frame:
    """The image, enlarged where it is small, above two lines of text; both sides even, as H.264 requires."""
    import cv2

    factor = max(1, -(-NARROWEST // image.shape[1]))
    enlarged = image.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = enlarged.shape[:2]
    rows = height + 2 * LINE + MARGIN
    whole = np.empty((rows + rows % 2, width + width % 2, 3), dtype=np.uint8)
    whole[...] = BACKGROUND
    whole[:height, :width] = enlarged
    font = cv2.FONT_HERSHEY_SIMPLEX
    for row, line in enumerate(moment.lines):
        colour = SUCCESS if row and moment.succeeded else INK
        place = (MARGIN, height + (row + 1) * LINE - 3)
        # OpenCV's letters are ASCII
        words = line.encode("ascii", "replace").decode()
        (needed, _), _ = cv2.getTextSize(words, font, SIZE, 1)
        size = SIZE * min(1.0, (width - 2 * MARGIN) / max(needed, 1))
        cv2.putText(whole, words, place, font, size, colour, 1, cv2.LINE_AA)
    return whole
