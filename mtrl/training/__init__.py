"""The agent contract, the loop, and what a run keeps: checkpoints, metrics, progress."""

from typing import TYPE_CHECKING

from mtrl.lazy import lazy_names

if TYPE_CHECKING:
    from mtrl.run_directory import POLICIES, RunDirectory, own_folder, own_run, require_disk, run_around

    from .agent import (
        PARENTS,
        AdoptsTasks,
        Agent,
        Datasets,
        DrawsPanels,
        External,
        FollowsBudget,
        Groups,
        KeepsReplay,
        LivePolicy,
        MapsReplay,
        MeasuresConflict,
        Needs,
        OffersController,
        OffersTwin,
        Offline,
        RequestsGroups,
        ServesMore,
        State,
        Stream,
        Synthesises,
        TakesShares,
        Use,
        require_one_rank,
    )
    from .baseline import Baseline, BaselineRun, run_baseline
    from .checkpoint import Checkpoints
    from .codec import load_state, save_state
    from .config import Clock, OnlineConfig, TrainingConfig
    from .episode_statistics import EPISODE_METRICS, EpisodeStatistics
    from .factory import AgentFactory
    from .interrupt import SAVING, Interruptible
    from .jsonl import CosineTracker, JsonlTracker, read_jsonl
    from .loop import learn
    from .metrics import Metric, Metrics, metrics_table, undocumented
    from .progress_display import progress
    from .run_metrics import EVALUATION_METRICS, RUN_METRICS, RUN_TIMINGS
    from .run_recorder import Evaluation, Evaluator, RunRecorder, require_format
    from .sources import (
        RANDOM,
        DatasetSource,
        GroupSource,
        NumberedFragments,
        Source,
        StoredStream,
        StreamSource,
    )
    from .tensorboard import TensorBoardTracker
    from .trackers import Tracker, Trackers
    from .weights_and_biases import WandbConfig, WandbTracker

__all__ = [
    "EPISODE_METRICS",
    "EVALUATION_METRICS",
    "PARENTS",
    "POLICIES",
    "RANDOM",
    "RUN_METRICS",
    "RUN_TIMINGS",
    "SAVING",
    "AdoptsTasks",
    "Agent",
    "AgentFactory",
    "Baseline",
    "BaselineRun",
    "Checkpoints",
    "Clock",
    "CosineTracker",
    "DatasetSource",
    "Datasets",
    "DrawsPanels",
    "EpisodeStatistics",
    "Evaluation",
    "Evaluator",
    "External",
    "FollowsBudget",
    "GroupSource",
    "Groups",
    "Interruptible",
    "JsonlTracker",
    "KeepsReplay",
    "LivePolicy",
    "MapsReplay",
    "MeasuresConflict",
    "Metric",
    "Metrics",
    "Needs",
    "NumberedFragments",
    "OffersController",
    "OffersTwin",
    "Offline",
    "OnlineConfig",
    "RequestsGroups",
    "RunDirectory",
    "RunRecorder",
    "ServesMore",
    "Source",
    "State",
    "StoredStream",
    "Stream",
    "StreamSource",
    "Synthesises",
    "TakesShares",
    "TensorBoardTracker",
    "Tracker",
    "Trackers",
    "TrainingConfig",
    "Use",
    "WandbConfig",
    "WandbTracker",
    "learn",
    "load_state",
    "metrics_table",
    "own_folder",
    "own_run",
    "progress",
    "read_jsonl",
    "require_disk",
    "require_format",
    "require_one_rank",
    "run_around",
    "run_baseline",
    "save_state",
    "undocumented",
]

__getattr__, __dir__ = lazy_names(__name__)
