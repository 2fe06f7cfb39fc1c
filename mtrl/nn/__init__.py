"""Networks that several agents share."""

from .average import update_average
from .chunk_network import ChunkNetwork, ChunkShape, require_continuous_states
from .distributions import Categorical, Gaussian, TanhGaussian, TwoHot, wide
from .encoders import (
    EncoderConfig,
    ObservationEncoder,
    PixelEncoder,
    PixelEncoderConfig,
    StateEncoder,
)
from .expert_diagnostics import (
    dormant_fraction,
    expert_cosine,
    expert_load,
    gate_entropy,
    load_variation,
    task_expert_information,
    torso_diagnostics,
)
from .explicit import ExplicitNetwork
from .flat import FlatParameters
from .heads import (
    CategoricalHead,
    GaussianHead,
    GaussianHeadConfig,
    ScalarValueHead,
    TwoHotConfig,
    TwoHotValueHead,
)
from .layers import BatchedLinear, ComposedLinear, LayerNorm, TaskLinear, TaskTable
from .residual import ResidualBlock, ResidualMLP
from .soft_experts import SoftExperts
from .stack import Stack
from .task_embedding import TaskEmbedding, TaskEmbeddingConfig
from .task_network import TaskNetwork
from .torsos import (
    CareConfig,
    ExpertsConfig,
    FilmConfig,
    MooreConfig,
    PaCoConfig,
    SoftModulesConfig,
    Torso,
    TorsoConfig,
    build_torso,
)

__all__ = [
    "BatchedLinear",
    "CareConfig",
    "Categorical",
    "CategoricalHead",
    "ChunkNetwork",
    "ChunkShape",
    "ComposedLinear",
    "EncoderConfig",
    "ExpertsConfig",
    "ExplicitNetwork",
    "FilmConfig",
    "FlatParameters",
    "Gaussian",
    "GaussianHead",
    "GaussianHeadConfig",
    "LayerNorm",
    "MooreConfig",
    "ObservationEncoder",
    "PaCoConfig",
    "PixelEncoder",
    "PixelEncoderConfig",
    "ResidualBlock",
    "ResidualMLP",
    "ScalarValueHead",
    "SoftExperts",
    "SoftModulesConfig",
    "Stack",
    "StateEncoder",
    "TanhGaussian",
    "TaskEmbedding",
    "TaskEmbeddingConfig",
    "TaskLinear",
    "TaskNetwork",
    "TaskTable",
    "Torso",
    "TorsoConfig",
    "TwoHot",
    "TwoHotConfig",
    "TwoHotValueHead",
    "build_torso",
    "dormant_fraction",
    "expert_cosine",
    "expert_load",
    "gate_entropy",
    "load_variation",
    "require_continuous_states",
    "task_expert_information",
    "torso_diagnostics",
    "update_average",
    "wide",
]
