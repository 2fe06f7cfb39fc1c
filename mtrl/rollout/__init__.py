"""Lanes, fragments, whole episodes, policies, and the workers that run them."""

from typing import TYPE_CHECKING

from mtrl.lazy import lazy_names

if TYPE_CHECKING:
    from .chunk_policy import (
        BlendingSampler,
        ChunkPolicy,
        ChunkSampler,
        ChunkSpec,
        FunctionSampler,
        ResumingSampler,
    )
    from .collection.lane_placement import balance
    from .collection.local import LocalFragments, LocalRollouts
    from .collection.pool_fragments import Delivery, PoolFragments
    from .collection.pool_rollouts import PoolRollouts
    from .collection.round_robin import RoundRobin
    from .episodes import Episodes, EpisodeSummary
    from .execution import Execution, ExecutionChanges
    from .fragment import Fragment, fragment_bytes
    from .gymnasium_view import GymnasiumView
    from .job import BrokenJobEpisode, EpisodeGroup, EpisodeJob, GroupRequest, JobResult
    from .lanes.environments import backends_of, require_backends
    from .lanes.lane import Lane
    from .lanes.python_lane import PythonLane
    from .lanes.recorder import StepRecorder
    from .lanes.run_job import run_job, schedule_of
    from .lanes.vector_lane import VectorLane
    from .lost_starts import LostStart, LostStarts, OpenEpisodes
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
    from .runtime import (
        CollectionConfig,
        FaultHandler,
        FaultLog,
        FaultText,
        Fragments,
        Rollouts,
        RuntimeConfig,
    )
    from .scripted import (
        ConstantPolicy,
        ExpertPolicy,
        NoiseConfig,
        RandomPolicy,
        policy_from,
        require_experts,
    )
    from .shared_space import SharedEnvironment, SharedObservation, SharedSpace
    from .staleness import STALENESS_BOUNDS, Staleness
    from .unseen_tasks import HELD_OUT, HeldOutPolicy, held_out, held_out_policy
    from .workers.backend import KEPT, Backend, Event, Lost
    from .workers.calls import Call, CallExecutor, CallValue, Collect
    from .workers.guarded import GuardedExecutor
    from .workers.messages import RemoteError
    from .workers.processes import Processes, child_environment
    from .workers.worker import LaneAssignment, RolloutWorker

__all__ = [
    "HELD_OUT",
    "KEPT",
    "LOG_PROBABILITY",
    "STALENESS_BOUNDS",
    "Acting",
    "Action",
    "Backend",
    "BlendingSampler",
    "BrokenJobEpisode",
    "Call",
    "CallExecutor",
    "CallValue",
    "ChunkPolicy",
    "ChunkSampler",
    "ChunkSpec",
    "Collect",
    "CollectionConfig",
    "ConstantPolicy",
    "Delivery",
    "EpisodeGroup",
    "EpisodeJob",
    "EpisodeSummary",
    "Episodes",
    "Event",
    "Execution",
    "ExecutionChanges",
    "ExpertPolicy",
    "Extra",
    "FaultHandler",
    "FaultLog",
    "FaultText",
    "Fragment",
    "Fragments",
    "FunctionSampler",
    "GroupRequest",
    "GuardedExecutor",
    "GymnasiumView",
    "HeldOutPolicy",
    "JobResult",
    "Lane",
    "LaneAssignment",
    "LocalFragments",
    "LocalRollouts",
    "Lost",
    "LostStart",
    "LostStarts",
    "NoiseConfig",
    "OpenEpisodes",
    "Policy",
    "PolicySnapshot",
    "PolicyState",
    "PoolFragments",
    "PoolRollouts",
    "Processes",
    "PythonLane",
    "RandomPolicy",
    "RemoteError",
    "ResumingSampler",
    "RolloutWorker",
    "Rollouts",
    "RoundRobin",
    "RuntimeConfig",
    "SharedEnvironment",
    "SharedObservation",
    "SharedSpace",
    "Staleness",
    "StepRecorder",
    "VectorLane",
    "Version",
    "backends_of",
    "balance",
    "child_environment",
    "fragment_bytes",
    "generator_for",
    "held_out",
    "held_out_policy",
    "policy_from",
    "require_backends",
    "require_experts",
    "run_job",
    "schedule_of",
]

__getattr__, __dir__ = lazy_names(__name__)
