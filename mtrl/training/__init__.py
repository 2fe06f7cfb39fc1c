"""The agent contract, the loop, and what a run keeps: checkpoints, metrics, progress."""

from .agent import Agent, AgentFactory, Baseline, DataNeeds, TaskGradients
from .checkpoint import Checkpoints
from .codec import load_state, save_state
from .interrupt import Interruptible
from .jsonl import JsonlTracker, read_jsonl
from .loop import Learner, TrainingConfig, train
from .progress import Progress, progress
from .run_directory import RunDirectory, require_disk
from .tensorboard import TensorBoardTracker
from .trackers import Tracker, Trackers

__all__ = [
    "Agent",
    "AgentFactory",
    "Baseline",
    "Checkpoints",
    "DataNeeds",
    "Interruptible",
    "JsonlTracker",
    "Learner",
    "Progress",
    "RunDirectory",
    "TaskGradients",
    "TensorBoardTracker",
    "Tracker",
    "Trackers",
    "TrainingConfig",
    "load_state",
    "progress",
    "read_jsonl",
    "require_disk",
    "save_state",
    "train",
]
