"""Networks that several agents share."""

from typing import TYPE_CHECKING

from mtrl.lazy import lazy_names

if TYPE_CHECKING:
    from .chunk_network import ChunkNetwork, bounded, log_choices
    from .config import (
        EXPERT_BALANCES,
        ChunkShape,
        PixelEncoderConfig,
        RoutedExpertsConfig,
        TaskEmbeddingConfig,
    )
    from .distributions import (
        Gaussian,
        TanhGaussian,
        draw_index,
        full_precision,
        index_at,
        masked_log_softmax,
    )
    from .encoders import (
        ObservationEncoder,
        PixelEncoder,
        SoftExperts,
        scatter_rows,
        select_rows,
    )
    from .expert_diagnostics import torso_diagnostics
    from .explicit import ExplicitNetwork
    from .flat import FlatParameters
    from .layers import BatchedLinear, ComposedLinear, LayerNorm, Stack, TaskLinear, TaskTable
    from .normalisation import RewardScale, TaskNormaliser
    from .precision import compiled, device_of, has_bf16, uses_bf16
    from .residual import ResidualBlock, ResidualMLP
    from .routed_experts import RoutedExperts, TaskGates
    from .task_controller import TaskController, legal_shares
    from .task_embedding import TaskEmbedding
    from .task_network import TaskNetwork
    from .torsos.base import Torso
    from .torsos.build import build_torso
    from .torsos.config import (
        CareConfig,
        ExpertsConfig,
        FilmConfig,
        MooreConfig,
        PaCoConfig,
        SoftModulesConfig,
        TorsoConfig,
    )
    from .value_heads import CategoricalValueHead, ScalarValueHead, ValueHead
    from .weights import arrays_of, begin_as, tensors_of, update_average

__all__ = [
    "EXPERT_BALANCES",
    "BatchedLinear",
    "CareConfig",
    "CategoricalValueHead",
    "ChunkNetwork",
    "ChunkShape",
    "ComposedLinear",
    "ExpertsConfig",
    "ExplicitNetwork",
    "FilmConfig",
    "FlatParameters",
    "Gaussian",
    "LayerNorm",
    "MooreConfig",
    "ObservationEncoder",
    "PaCoConfig",
    "PixelEncoder",
    "PixelEncoderConfig",
    "ResidualBlock",
    "ResidualMLP",
    "RewardScale",
    "RoutedExperts",
    "RoutedExpertsConfig",
    "ScalarValueHead",
    "SoftExperts",
    "SoftModulesConfig",
    "Stack",
    "TanhGaussian",
    "TaskController",
    "TaskEmbedding",
    "TaskEmbeddingConfig",
    "TaskGates",
    "TaskLinear",
    "TaskNetwork",
    "TaskNormaliser",
    "TaskTable",
    "Torso",
    "TorsoConfig",
    "ValueHead",
    "arrays_of",
    "begin_as",
    "bounded",
    "build_torso",
    "compiled",
    "device_of",
    "draw_index",
    "full_precision",
    "has_bf16",
    "index_at",
    "legal_shares",
    "log_choices",
    "masked_log_softmax",
    "scatter_rows",
    "select_rows",
    "tensors_of",
    "torso_diagnostics",
    "update_average",
    "uses_bf16",
]

__getattr__, __dir__ = lazy_names(__name__)
