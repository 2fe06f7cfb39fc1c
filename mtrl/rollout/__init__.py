"""Lanes, fragments, whole episodes, policies, and the workers that run them."""

from .chunk_policy import ChunkPolicy, Execution, Planner
from .collection import CollectionConfig, Fragments, LaneBooks, LocalFragments, fragment_bytes
from .episodes import EpisodeGroup, Episodes, EpisodeSummary
from .fragment import Fragment, FragmentRecorder
from .job import EpisodeJob, JobResult, run_job, schedule_of
from .lane import FinalObservation, Lane, PythonLane
from .policy import Action, Policy, PolicySnapshot, PolicyState, generator_for
from .rebuild import policy_from
from .runtime import FaultHandler, LocalRollouts, Rollouts, RuntimeConfig
from .scripted import ExpertPolicy, NoiseConfig, RandomPolicy
from .worker import LaneAssignment, RolloutWorker

__all__ = [
    "Action",
    "ChunkPolicy",
    "CollectionConfig",
    "EpisodeGroup",
    "EpisodeJob",
    "EpisodeSummary",
    "Episodes",
    "Execution",
    "ExpertPolicy",
    "FaultHandler",
    "FinalObservation",
    "Fragment",
    "FragmentRecorder",
    "Fragments",
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
    "RolloutWorker",
    "Rollouts",
    "RuntimeConfig",
    "fragment_bytes",
    "generator_for",
    "policy_from",
    "run_job",
    "schedule_of",
]
