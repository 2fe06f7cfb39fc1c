"""Settings of the diffusion agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from mtrl.errors import OutOfRangeError
from mtrl.gradients import SurgeryConfig
from mtrl.nn import ChunkShape
from mtrl.rollout import Execution
from mtrl.structured import BELOW_ONE, POSITIVE, Checked, at_least, between


@dataclass(frozen=True)
class NoiseLevels(Checked, place="noise"):
    """Noise levels of training and sampling, in units of the action range's half-width."""

    data_deviation: Annotated[float, POSITIVE] = 0.5
    """sigma_data: assumed standard deviation of actions, above 0 (Karras et al. 2022: 0.5)."""
    minimum: Annotated[float, POSITIVE] = 0.02
    """Smallest sampled sigma, above 0 (Karras: 0.002 for images)."""
    maximum: Annotated[float, POSITIVE] = 20.0
    """Largest sampled sigma, above `minimum` (Karras: 80 for images)."""
    rho: Annotated[float, at_least(1)] = 7.0
    """Exponent of the sampling grid, at least 1 (Karras: 7)."""
    train_mean: float = -1.0
    """Mean of ln sigma in training (Karras: -1.2)."""
    train_deviation: Annotated[float, POSITIVE] = 1.4
    """Standard deviation of ln sigma in training, above 0 (Karras: 1.2)."""

    RENAMED: ClassVar[Mapping[str, str]] = {"curvature": "rho"}
    """Key of older files -> field."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.minimum < self.maximum:
            raise OutOfRangeError("noise.minimum", self.minimum, f"between 0 and maximum={self.maximum}")


@dataclass(frozen=True)
class DiffusionConfig(Checked, place="agent"):
    """The diffusion policy, or by one key behaviour cloning with a network of the same size."""

    objective: Annotated[str, ("diffusion", "regression")] = "diffusion"
    """"diffusion": EDM denoising of action chunks. "regression": behaviour cloning by squared error
    with the same network."""
    network: ChunkShape = field(default_factory=ChunkShape)
    """Sizes of the network."""
    noise: NoiseLevels = field(default_factory=NoiseLevels)
    """Noise levels; unused by regression."""
    sampler_steps: Annotated[int, between(1, 1000)] = 10
    """Denoising steps per plan, 1 to 1000."""
    execution: Execution = field(default_factory=Execution)
    """How planned chunks are carried out."""
    batch_size: Annotated[int, at_least(1)] = 256
    """Samples per update, shared evenly by the tasks; at least one per task."""
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    """Peak step size of AdamW, above 0."""
    weight_decay: Annotated[float, at_least(0)] = 1e-4
    """Decoupled weight decay, at least 0."""
    warmup: Annotated[int, at_least(0)] = 200
    """Updates of linear warm-up before the cosine decay, at least 0."""
    decay_updates: Annotated[int, at_least(0, "the run's budget")] = 0
    """Updates after which the cosine decay reaches zero; 0 takes the run's budget of updates."""
    ema_decay: Annotated[float, BELOW_ONE] = 0.995
    """Decay of the weights' moving average that acts, in [0, 1)."""
    gradient_clip: Annotated[float, POSITIVE] = 1.0
    """Largest global gradient norm, above 0."""
    gradients: SurgeryConfig = field(default_factory=SurgeryConfig)
    """How the gradients of the tasks are combined; "sum" costs nothing."""

    RENAMED: ClassVar[Mapping[str, str]] = {"average_decay": "ema_decay"}
    """Key of older files -> field."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.execution.require_within(self.network.chunk, "agent.")
