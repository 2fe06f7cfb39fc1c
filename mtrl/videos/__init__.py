"""Videos of evaluated episodes: recorded, captioned, written as MP4 and read back."""

from .recorder import Recorder, Subject
from .video_file import Frame
from .video_record import Video, read_videos, video_name
from .window import open_window

__all__ = ["Frame", "Recorder", "Subject", "Video", "open_window", "read_videos", "video_name"]
