"""From observations to features: one encoder per bucket, then one row of features per sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from mtrl.errors import OutOfRangeError, SpaceError, UnknownNameError
from mtrl.spaces import Layout, Moments
from mtrl.structured import between, check

from .layers import BatchedLinear, LayerNorm, fill_he_uniform
from .soft_experts import SoftExperts

if TYPE_CHECKING:
    from mtrl.data import Bucket


class StateEncoder(nn.Module):
    """Standardises padded state vectors with the statistics of their own task.

    Statistics are buffers, so that they travel with the weights; until `set_moments` states pass as
    they are. Padded entries come out as 0.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    mask: torch.Tensor

    def __init__(self, layout: Layout, clip: float = 5.0) -> None:
        """Values beyond `clip` standard deviations, above 0, are cut off; infinity cuts nothing."""
        super().__init__()
        if not clip > 0:
            raise OutOfRangeError("clip", clip, "above 0")
        self.clip = clip
        self.outputs = layout.state_size
        self.register_buffer("mean", torch.zeros(layout.task_count, layout.state_size))
        self.register_buffer("scale", torch.ones(layout.task_count, layout.state_size))
        self.register_buffer("mask", torch.as_tensor(layout.state_mask).float(), persistent=False)

    def set_moments(self, moments: Moments) -> None:
        """Takes the statistics, [T, D_max] each: `RunningMoments.freeze(layout.state_mask)`."""
        self.mean.copy_(torch.as_tensor(moments.mean))
        self.scale.copy_(torch.as_tensor(moments.scale))

    def forward(self, states: torch.Tensor, task_index: torch.Tensor) -> torch.Tensor:
        """[K, B, D_max], task_index [K] -> [K, B, D_max]"""
        centred = (states - self.mean[task_index][:, None]) / self.scale[task_index][:, None]
        return centred.clamp(-self.clip, self.clip) * self.mask[task_index][:, None]


@dataclass(frozen=True)
class PixelEncoderConfig:
    """Sizes of the picture encoder."""

    kind: str = "nature"
    """Convolutions (channels, kernel, stride). "nature": (32, 8, 4), (64, 4, 2), (64, 3, 1) (Mnih et al.
    2015), cheap; "drq": four times (32, 3), strides 2, 1, 1, 1 (Yarats et al. 2021), 7 times the work."""
    features: int = 50
    """Length of the output, 1 to 4096 (DrQ-v2: 50; Nature: 512)."""
    experts: int = 0
    """Experts of a soft mixture over the places of the last convolution, 0 to 64; 0 is off (arXiv 2402.08609:
    1 to 8, and gains grow with the number)."""
    expert_hidden: int = 512
    """Width inside an expert, 1 to 8192 (the same: 512)."""

    def __post_init__(self) -> None:
        if self.kind not in CONVOLUTIONS:
            raise UnknownNameError("pixel encoder", self.kind, CONVOLUTIONS)
        check(
            self,
            "pixels",
            features=between(1, 4096),
            experts=between(0, 64, "none"),
            expert_hidden=between(1, 8192),
        )


CONVOLUTIONS = {
    "nature": ((32, 8, 4), (64, 4, 2), (64, 3, 1)),
    "drq": ((32, 3, 2), (32, 3, 1), (32, 3, 1), (32, 3, 1)),
}


class PixelEncoder(nn.Module):
    """Convolutions with ReLU, then Linear, LayerNorm and tanh (Yarats et al. 2021, arXiv 2107.09645).

    All tasks share it; LayerNorm standardises each picture by itself, so tasks stay apart. With `experts`,
    a soft mixture of them transforms the places of the last convolution before they are flattened.
    """

    def __init__(
        self,
        config: PixelEncoderConfig,
        pixels: tuple[int, int, int],
        generator: torch.Generator | None = None,
    ) -> None:
        """`pixels` is (C, H, W). Raises SpaceError for pictures that the convolutions cannot read."""
        super().__init__()
        self.pixels = pixels
        self.outputs = config.features
        channels, height, width = pixels
        self.convolutions = nn.ModuleList()
        for wide, kernel, stride in CONVOLUTIONS[config.kind]:
            if min(height, width) < kernel:
                raise SpaceError(
                    f"pixel encoder {config.kind!r} cannot read pictures of {pixels[1]} x {pixels[2]}; "
                    "84 x 84 is usual"
                )
            convolution = nn.Conv2d(channels, wide, kernel, stride)
            fill_he_uniform(convolution.weight, channels * kernel * kernel, generator)
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)
            self.convolutions.append(convolution)
            channels, height, width = wide, (height - kernel) // stride + 1, (width - kernel) // stride + 1
        self.mixture: SoftExperts | None = None
        if config.experts:
            self.mixture = SoftExperts(
                height * width, channels, config.experts, config.expert_hidden, generator
            )
        flat = channels * height * width
        self.linear = BatchedLinear((), flat, config.features, generator=generator)
        self.norm = LayerNorm((), config.features)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """uint8 [K, B, C, H, W] -> [K, B, features] in (-1, 1)"""
        if tuple(pictures.shape[-3:]) != self.pixels or pictures.dim() != 5:
            raise SpaceError(f"pictures [K, B, {self.pixels}] are expected; got {list(pictures.shape)}")
        weight = self.linear.weight
        hidden = pictures.flatten(0, 1).to(weight.dtype) / 255.0 - 0.5
        for convolution in self.convolutions:
            hidden = nn.functional.relu(convolution(hidden))
        if self.mixture is not None:
            tokens = hidden.flatten(2).transpose(1, 2).unflatten(0, pictures.shape[:2])
            rows = self.mixture(tokens).flatten(2)
        else:
            rows = hidden.flatten(1).unflatten(0, pictures.shape[:2])
        return torch.tanh(self.norm(self.linear(rows)))


@dataclass(frozen=True)
class EncoderConfig:
    """How observations become features."""

    clip: float = 5.0
    """Standardised states are cut off here, in standard deviations, above 0."""
    pixels: PixelEncoderConfig | None = None
    """The picture encoder; None takes its defaults."""

    def __post_init__(self) -> None:
        if not (self.clip > 0 and not math.isnan(self.clip)):
            raise OutOfRangeError("clip", self.clip, "above 0")


class ObservationEncoder(nn.Module):
    """Buckets of a batch -> features [K, B, d], d the sum of the buckets' features.

    A task that does not fill a bucket has zeros in its place. Encoders see only the rows of their bucket.
    """

    def __init__(
        self, config: EncoderConfig, layout: Layout, generator: torch.Generator | None = None
    ) -> None:
        """Raises SpaceError for pictures that no encoder can read."""
        super().__init__()
        self.state = StateEncoder(layout, config.clip) if layout.state_size else None
        self.pixels: PixelEncoder | None = None
        if layout.pixels_shape is not None:
            self.pixels = PixelEncoder(config.pixels or PixelEncoderConfig(), layout.pixels_shape, generator)
        self.outputs = sum(part.outputs for part in (self.state, self.pixels) if part is not None)

    def forward(self, buckets: Mapping[str, Bucket], task_index: torch.Tensor) -> torch.Tensor:
        """`buckets` and `task_index` [K] of a Batch -> [K, B, outputs]. Raises SpaceError for a bucket
        that the layout has not.
        """
        parts = []
        for name in buckets:
            if getattr(self, name, None) is None:
                raise SpaceError(f"there is no encoder for bucket {name!r} in this layout")
        samples = next(iter(buckets.values())).values.shape[1]
        for name, encoder in (("state", self.state), ("pixels", self.pixels)):
            if encoder is None:
                continue
            bucket = buckets.get(name)
            if bucket is None:
                parts.append(torch.zeros(len(task_index), samples, encoder.outputs, device=task_index.device))
                continue
            if isinstance(encoder, StateEncoder):
                features = encoder(bucket.values, task_index[bucket.rows])
            else:
                features = encoder(bucket.values)
            if len(bucket.rows) == len(task_index):
                parts.append(features)
            else:
                empty = features.new_zeros(len(task_index), *features.shape[1:])
                parts.append(empty.index_copy(0, bucket.rows, features))
        wide = torch.promote_types(parts[0].dtype, parts[-1].dtype)
        return torch.cat([part.to(wide) for part in parts], dim=-1)
