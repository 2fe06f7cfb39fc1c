"""What agents learn from: batches over tasks, demonstrations in memory, and datasets on disk."""

from typing import TYPE_CHECKING

from mtrl.lazy import lazy_names

if TYPE_CHECKING:
    from .batch import Batch, Bucket
    from .chunks import ChunkDataset, RankDataset, merged_moments
    from .config import DemonstrationConfig, MixtureConfig, ReplayConfig
    from .demonstrations import Collected, collect_demonstrations
    from .lerobot import write_lerobot
    from .lerobot_reading import is_lerobot, read_lerobot, read_lerobot_info
    from .minari import dataset_id_of, read_dataset, read_provenance, write_dataset
    from .replay import Replay, replay_bytes
    from .storage import CommitRecord, MappedStorage
    from .trajectories import Trajectories, Windows

__all__ = [
    "Batch",
    "Bucket",
    "ChunkDataset",
    "Collected",
    "CommitRecord",
    "DemonstrationConfig",
    "MappedStorage",
    "MixtureConfig",
    "RankDataset",
    "Replay",
    "ReplayConfig",
    "Trajectories",
    "Windows",
    "collect_demonstrations",
    "dataset_id_of",
    "is_lerobot",
    "merged_moments",
    "read_dataset",
    "read_lerobot",
    "read_lerobot_info",
    "read_provenance",
    "replay_bytes",
    "write_dataset",
    "write_lerobot",
]

__getattr__, __dir__ = lazy_names(__name__)
