"""Tasks, task sets, reproducible starts and the suite contract."""

from .starts import FixedStarts, Split, StartSchedule, TrainingStarts, split_of, start_id, start_seed
from .suite import Environment, Expert, MultimodalSuite, Suite
from .task import Option, Score, Task
from .task_set import TaskSet

__all__ = [
    "Environment",
    "Expert",
    "FixedStarts",
    "MultimodalSuite",
    "Option",
    "Score",
    "Split",
    "StartSchedule",
    "Suite",
    "Task",
    "TaskSet",
    "TrainingStarts",
    "split_of",
    "start_id",
    "start_seed",
]
