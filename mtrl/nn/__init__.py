"""Networks that several agents share."""

from .average import update_average
from .chunk_network import ChunkNetwork, ChunkShape, require_continuous_states
from .residual import ResidualBlock, ResidualMLP

__all__ = [
    "ChunkNetwork",
    "ChunkShape",
    "ResidualBlock",
    "ResidualMLP",
    "require_continuous_states",
    "update_average",
]
