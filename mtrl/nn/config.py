"""Settings of the networks; importing them loads no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from mtrl.errors import OutOfRangeError, UnknownNameError
from mtrl.structured import POSITIVE, Checked, at_least, between

ACTIVATIONS = ("relu", "silu", "gelu", "elu", "tanh")
"""Names of activations."""

CONVOLUTIONS = {
    "nature": ((32, 8, 4), (64, 4, 2), (64, 3, 1)),
    "small": ((16, 8, 4), (32, 4, 2)),
    "drq": ((32, 3, 2), (32, 3, 1), (32, 3, 1), (32, 3, 1)),
}


@dataclass(frozen=True)
class PixelEncoderConfig(Checked, place="pixels"):
    """Sizes of the image encoder."""

    kind: str = "nature"
    """Convolutions (channels, kernel, stride). "nature": (32, 8, 4), (64, 4, 2), (64, 3, 1) (Mnih et al.
    2015), cheap; "small": (16, 8, 4), (32, 4, 2) (Mnih et al. 2013), a third of the work; "drq": four times
    (32, 3), strides 2, 1, 1, 1 (Yarats et al. 2021), 7 times the work."""
    features: Annotated[int, between(1, 4096)] = 50
    """Length of the output, 1 to 4096 (DrQ-v2: 50; Nature: 512)."""
    experts: Annotated[int, between(0, 64, "none")] = 0
    """Experts of a soft mixture over the positions of the last convolution, 0 to 64; 0 is off
    (arXiv 2402.08609: 1 to 8, and gains grow with the number)."""
    expert_hidden: Annotated[int, between(1, 8192)] = 512
    """Width inside an expert, 1 to 8192 (the same: 512)."""

    def __post_init__(self) -> None:
        if self.kind not in CONVOLUTIONS:
            raise UnknownNameError("pixel encoder", self.kind, CONVOLUTIONS)
        super().__post_init__()


EMBEDDINGS = ("one_hot", "learned", "given")


@dataclass(frozen=True)
class TaskEmbeddingConfig(Checked, place="embedding"):
    """How a task index becomes a vector."""

    kind: str = "one_hot"
    """"one_hot" (Meta-World+), "learned" (BRC), or "given": the caller passes one, for instance of the
    task's description (CARE) or the one another network has learned."""
    size: Annotated[int, between(1, 4096)] = 32
    """Length of a learned or given embedding, 1 to 4096 (BRC: 32; CARE: 50); one-hot is one per task."""
    normalised: bool = True
    """Whether a learned embedding is scaled to length 1, so that all tasks weigh alike (BRC: true)."""

    def __post_init__(self) -> None:
        if self.kind not in EMBEDDINGS:
            raise UnknownNameError("task embedding", self.kind, EMBEDDINGS)
        super().__post_init__()


EXPERT_BALANCES = ("none", "bias", "loss")


@dataclass(frozen=True)
class RoutedExpertsConfig(Checked, place="experts"):
    """Sizes and routing of a mixture of experts."""

    routed: Annotated[int, between(1, 256)] = 4
    """Experts that the gate chooses from, E, 1 to 256."""
    shared: Annotated[int, between(0, 16)] = 1
    """Experts that every sample passes, 0 to 16 (ScaleZero: 1)."""
    chosen: Annotated[int, at_least(1)] = 2
    """Experts of a task, k, 1 to `routed` (ScaleZero: 1, whose gate gets no gradient)."""
    width: Annotated[int, between(1, 8192)] = 96
    """Units of an expert's hidden layers, 1 to 8192."""
    depth: Annotated[int, between(1, 16)] = 2
    """Hidden layers of an expert, 1 to 16."""
    state_gate: bool = False
    """Whether the gate sees the layer's input too, not only its task; every expert is computed then."""
    temperature: Annotated[float, POSITIVE] = 0.5
    """Divides the gate's logits, above 0: the smaller, the faster the gate decides."""
    noise: Annotated[float, at_least(0)] = 0.5
    """Standard deviation of the noise on the gate's logits while training, at least 0. Renormalised weights
    give no gradient to experts that were not chosen: noise lets every expert be tried."""
    noise_updates: Annotated[int, at_least(1)] = 2000
    """Updates over which the noise falls linearly to 0, at least 1."""
    balance: Annotated[str, EXPERT_BALANCES] = "loss"
    """"bias": a bias that only selects moves against the load (arXiv 2408.15664). "loss": the factor
    `balance_rate` times E sum_i f_i p_i (arXiv 2101.03961) is added. "none"."""
    balance_rate: Annotated[float, at_least(0)] = 0.01
    """Step of the bias per update, or factor of the loss, at least 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chosen > self.routed:
            raise OutOfRangeError("experts.chosen", self.chosen, f"at most routed={self.routed}")


@dataclass(frozen=True)
class ChunkShape(Checked):
    """Sizes of a chunk network; everything needed to rebuild it."""

    width: Annotated[int, between(8, 4096)] = 256
    """Hidden width, 8 to 4096."""
    blocks: Annotated[int, between(1, 32)] = 3
    """Residual blocks, 1 to 32."""
    history: Annotated[int, between(1, 16)] = 1
    """States read, the newest last, 1 to 16."""
    chunk: Annotated[int, between(1, 64)] = 8
    """Actions planned at once, H, 1 to 64."""
    embedding: Annotated[int, between(1, 512)] = 16
    """Length of the learned task embedding, 1 to 512."""
    noise_features: Annotated[int, between(2, 64)] = 16
    """Sine and cosine features of the noise level; even, 2 to 64."""
    backbone: Annotated[str, ("mlp", "transformer")] = "mlp"
    """"mlp": residual blocks over the whole chunk. "transformer": attention among its actions, for a planner
    on a GPU; a student is an MLP."""
    heads: Annotated[int, between(1, 64)] = 4
    """Attention heads of the transformer, which divide `width`, 1 to 64."""

    ADDED: ClassVar[tuple[str, ...]] = ("backbone", "heads")
    """Fields that older files lack."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backbone == "transformer" and self.width % self.heads:
            raise OutOfRangeError("heads", self.heads, f"a divisor of width={self.width}")
        if self.noise_features % 2:
            raise OutOfRangeError("noise_features", self.noise_features, "an even number")
