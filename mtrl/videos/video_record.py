"""The JSON record of a video: policy, task, start and outcome."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from mtrl.evaluation.records import read_record, write_record
from mtrl.evaluation.results import PolicyReference

VIDEO_SCHEMA = 1
"""Version of `videos/*.json` that is written and read."""


@dataclass(frozen=True)
class Video:
    """One recorded episode: `<name>.mp4`, its last image `<name>.jpg`, and this record `<name>.json`."""

    path: Path
    """The MP4 file."""
    policy: PolicyReference
    task: str
    protocol_hash: str
    """Protocol of the task, as in results."""
    start: int
    episode_return: float
    success: bool | None
    """The success signal was on after at least one decision; None where returns are measured."""
    decisions: int
    whole: bool
    """Whether the video shows the episode to its end."""
    frames: int
    frames_per_second: float

    @property
    def poster(self) -> Path:
        """The last image, a JPEG file."""
        return self.path.with_suffix(".jpg")


def video_name(label: str, task: str, start: int) -> str:
    """File name of a video, for example "student-metaworld-reach-v3-2.mp4"."""
    return re.sub(r"[^\w.-]+", "-", f"{label}-{task}-{start}") + ".mp4"


def read_videos(directory: Path) -> tuple[Video, ...]:
    """The videos in a folder by file name; a record whose video was removed is left out.

    Raises IntegrityError for a record that is truncated or edited; the message names it.
    """
    found = []
    for file in sorted(directory.glob("*.json")):
        record = read_record(file)
        if record.integer("schema") != VIDEO_SCHEMA:
            record.refuse("schema", f"{VIDEO_SCHEMA}")
        policy = record.record("policy")
        if not file.with_suffix(".mp4").is_file():
            continue
        found.append(
            Video(
                path=file.with_suffix(".mp4"),
                policy=PolicyReference(
                    policy.text("label"),
                    policy.text("kind"),
                    policy.text("identity"),
                    policy.integer("version", 0),
                    policy.text("agent") if "agent" in policy else "",
                ),
                task=record.text("task"),
                protocol_hash=record.text("protocol_hash"),
                start=record.integer("start", 0),
                episode_return=record.number("episode_return"),
                success=record.boolean("success") if "success" in record else None,
                decisions=record.integer("decisions", 1),
                whole=record.boolean("whole"),
                frames=record.integer("frames", 1),
                frames_per_second=record.number("frames_per_second", 0.0),
            )
        )
    return tuple(found)


def write_video_record(video: Video) -> Path:
    """Writes `<name>.json` next to the video, replacing an older one."""
    content = {name: value for name, value in asdict(video).items() if name != "path"}
    record = {"schema": VIDEO_SCHEMA, **content}
    return write_record(video.path.with_suffix(".json"), record, overwrite=True)
