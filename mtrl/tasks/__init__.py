"""Tasks, task sets, reproducible starts and the suite contract."""

from .catalogue import DISTURBANCES, Catalogue, CatalogueSuite, OptionRule, require_vector_backend
from .disturbances import (
    disturbances_of,
    disturbed,
    split_disturbances,
    undisturbed,
    with_disturbances,
)
from .sampling import SamplingConfig, TaskSampler, sampler_for
from .starts import (
    FixedStarts,
    Split,
    StartSchedule,
    TrainingStarts,
    split_of,
    start_generator,
    start_id,
    start_seed,
)
from .suite import (
    Buffers,
    Environment,
    Expert,
    MeasuredSuite,
    MultimodalSuite,
    SelfTruncating,
    Suite,
    TaskAction,
    VectorAction,
    VectorEnvironment,
    VectorSuite,
)
from .task import Option, ProtocolValue, Score, Task, hash_of_protocol
from .task_set import NamedSet, TaskSet, require_continuous_states
from .threads import allowed_processors, native_threads, set_native_threads

__all__ = [
    "DISTURBANCES",
    "Buffers",
    "Catalogue",
    "CatalogueSuite",
    "Environment",
    "Expert",
    "FixedStarts",
    "MeasuredSuite",
    "MultimodalSuite",
    "NamedSet",
    "Option",
    "OptionRule",
    "ProtocolValue",
    "SamplingConfig",
    "Score",
    "SelfTruncating",
    "Split",
    "StartSchedule",
    "Suite",
    "Task",
    "TaskAction",
    "TaskSampler",
    "TaskSet",
    "TrainingStarts",
    "VectorAction",
    "VectorEnvironment",
    "VectorSuite",
    "allowed_processors",
    "disturbances_of",
    "disturbed",
    "hash_of_protocol",
    "native_threads",
    "require_continuous_states",
    "require_vector_backend",
    "sampler_for",
    "set_native_threads",
    "split_disturbances",
    "split_of",
    "start_generator",
    "start_id",
    "start_seed",
    "undisturbed",
    "with_disturbances",
]
