"""Videos of evaluated episodes: recorded, captioned, written as MP4 and read back."""

from typing import TYPE_CHECKING

from mtrl.lazy import lazy_names

if TYPE_CHECKING:
    from .recorder import Recorder, Subject
    from .video_file import Frame
    from .video_record import Video, read_videos, video_name
    from .window import open_window

__all__ = ["Frame", "Recorder", "Subject", "Video", "open_window", "read_videos", "video_name"]

__getattr__, __dir__ = lazy_names(__name__)
