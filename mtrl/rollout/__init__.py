"""Lanes, fragments, whole episodes, policies, and the workers that run them."""

from typing import TYPE_CHECKING

from .backends import backends_of, require_backends
from .balance import balance, completed
from .board import JobBoard
from .chunk_policy import ChunkPolicy, Execution, Planner
from .collection import (
    CollectionConfig,
    Fragments,
    InProcessFragments,
    LaneBooks,
    LocalFragments,
    ResumableFragments,
    SharedFragments,
    fragment_bytes,
)
from .episodes import Episodes, EpisodeSummary
from .experts import require_experts
from .fragment import Fragment, fragment_of
from .group import EpisodeGroup, GroupRequest
from .job import EpisodeJob, JobResult, run_job, schedule_of
from .lane import FinalObservation, Lane
from .policy import (
    LOG_PROBABILITY,
    Acting,
    Action,
    Extra,
    Policy,
    PolicySnapshot,
    PolicyState,
    Version,
    generator_for,
)
from .python_lane import PythonLane
from .rebuild import policy_from
from .recorder import StepRecorder
from .runtime import FaultHandler, FaultWords, LocalRollouts, Rollouts, RuntimeConfig
from .scripted import ExpertPolicy, NoiseConfig, RandomPolicy
from .turns import Turns
from .vector_lane import VectorLane
from .worker import LaneAssignment, RolloutWorker
from .worker_fragments import WorkerFragments
from .worker_rollouts import WorkerRollouts

if TYPE_CHECKING:
    from .gymnasium_view import GymnasiumView
    from .shared_space import SharedEnvironment, SharedObservation, SharedSpace

__all__ = [
    "LOG_PROBABILITY",
    "Acting",
    "Action",
    "ChunkPolicy",
    "CollectionConfig",
    "EpisodeGroup",
    "EpisodeJob",
    "EpisodeSummary",
    "Episodes",
    "Execution",
    "ExpertPolicy",
    "Extra",
    "FaultHandler",
    "FaultWords",
    "FinalObservation",
    "Fragment",
    "Fragments",
    "GroupRequest",
    "GymnasiumView",
    "InProcessFragments",
    "JobBoard",
    "JobResult",
    "Lane",
    "LaneAssignment",
    "LaneBooks",
    "LocalFragments",
    "LocalRollouts",
    "NoiseConfig",
    "Planner",
    "Policy",
    "PolicySnapshot",
    "PolicyState",
    "PythonLane",
    "RandomPolicy",
    "ResumableFragments",
    "RolloutWorker",
    "Rollouts",
    "RuntimeConfig",
    "SharedEnvironment",
    "SharedFragments",
    "SharedObservation",
    "SharedSpace",
    "StepRecorder",
    "Turns",
    "VectorLane",
    "Version",
    "WorkerFragments",
    "WorkerRollouts",
    "backends_of",
    "balance",
    "completed",
    "fragment_bytes",
    "fragment_of",
    "generator_for",
    "policy_from",
    "require_backends",
    "require_experts",
    "run_job",
    "schedule_of",
]


def __getattr__(name: str) -> object:
    """Imports Gymnasium only where its interface is used: it costs a fifth of a second."""
    if name == "GymnasiumView":
        from .gymnasium_view import GymnasiumView

        return GymnasiumView
    if name in ("SharedEnvironment", "SharedObservation", "SharedSpace"):
        from . import shared_space

        return getattr(shared_space, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
