"""Videos in the page: small ones embedded, large ones linked, policies of one start in one row."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from mtrl.videos import Video

from .contents import policy_order

EMBEDDED_BYTES = 2_000_000
"""A larger video is linked instead: the page stays one that opens at once."""
EMBEDDED_TOTAL = 24_000_000
"""All videos that the page holds itself; later ones are linked."""


@dataclass(frozen=True)
class EmbeddedVideo:
    """A video as the page shows it."""

    video: Video
    source: str
    """The video itself as a data address, or its path from the page."""
    poster: str
    """Its last image as a data address; "" where there is none."""
    embedded: bool

    @property
    def seconds(self) -> float:
        """How long it plays."""
        return self.video.frames / self.video.frames_per_second


@dataclass(frozen=True)
class VideoRow:
    """The videos of one start of one task, one per policy."""

    task: str
    start: int
    videos: tuple[EmbeddedVideo, ...]


def video_rows(videos: Sequence[Video], page: Path) -> tuple[VideoRow, ...]:
    """Videos by task in order of appearance of their names, then by start; `page` is the folder of the page.

    Videos of one task under different protocols are in different rows.
    """
    left = EMBEDDED_TOTAL
    found: dict[tuple[str, str, int], list[EmbeddedVideo]] = {}
    for video in sorted(videos, key=lambda video: (video.task, video.start, policy_order(video.policy))):
        size = video.path.stat().st_size
        embedded = size <= min(EMBEDDED_BYTES, left)
        left -= size if embedded else 0
        shown = EmbeddedVideo(
            video=video,
            source=_data(video.path, "video/mp4") if embedded else quote(_relative(video.path, page)),
            poster=_data(video.poster, "image/jpeg") if video.poster.is_file() else "",
            embedded=embedded,
        )
        found.setdefault((video.task, video.protocol_hash, video.start), []).append(shown)
    return tuple(VideoRow(task, start, tuple(shown)) for (task, _, start), shown in found.items())


def _relative(path: Path, page: Path) -> str:
    # not resolved: `videos` may be a link to a larger disk
    return path.relative_to(page).as_posix()


def _data(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
