"""From observations to features, one row per sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mtrl.errors import SpaceError
from mtrl.spaces import Layout

from .config import CONVOLUTIONS, PixelEncoderConfig
from .distributions import full_precision
from .layers import BatchedLinear, LayerNorm, Stack, fill_he_uniform
from .normalisation import TaskNormaliser

if TYPE_CHECKING:
    from mtrl.data import Bucket


class PixelEncoder(nn.Module):
    """Convolutions with ReLU, then Linear, LayerNorm and tanh (Yarats et al. 2021, arXiv 2107.09645).

    All tasks share it; LayerNorm standardises each image by itself, so tasks stay apart. With `experts`,
    a soft mixture of them transforms the positions of the last convolution before they are flattened.
    """

    def __init__(
        self,
        config: PixelEncoderConfig,
        pixels: tuple[int, int, int],
        generator: torch.Generator | None = None,
    ) -> None:
        """`pixels` is (C, H, W). Raises SpaceError for images that the convolutions cannot read."""
        super().__init__()
        self.pixels = pixels
        self.outputs = config.features
        channels, height, width = pixels
        self.convolutions = nn.ModuleList()
        for wide, kernel, stride in CONVOLUTIONS[config.kind]:
            if min(height, width) < kernel:
                raise SpaceError(
                    f"pixel encoder {config.kind!r} cannot read images of {pixels[1]} x {pixels[2]}; "
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

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [K, B, C, H, W] -> [K, B, features] in (-1, 1)"""
        if tuple(images.shape[-3:]) != self.pixels or images.dim() != 5:
            raise SpaceError(f"images [K, B, {self.pixels}] are expected; got {list(images.shape)}")
        weight = self.linear.weight
        hidden = images.flatten(0, 1).to(weight.dtype) / 255.0 - 0.5
        for convolution in self.convolutions:
            hidden = nn.functional.relu(convolution(hidden))
        if self.mixture is not None:
            tokens = hidden.flatten(2).transpose(1, 2).unflatten(0, images.shape[:2])
            rows = self.mixture(tokens).flatten(2)
        else:
            rows = hidden.flatten(1).unflatten(0, images.shape[:2])
        return torch.tanh(self.norm(self.linear(rows)))


class SoftExperts(nn.Module):
    """Soft MoE (Puigcerver et al. 2024, arXiv 2308.00951) as Obando-Ceron et al. 2024 (arXiv 2402.08609)
    put it behind the convolutions of value networks, with one token per position (PerConv).

    X [n, d] holds an image's tokens; L = X Phi has a column for each of E p slots.
    Y = C f(D^T X), D = softmax of L over tokens, C = softmax of L over slots, and f the expert of a slot,
    d -> `hidden` -> d with ReLU between. Each image is mixed by itself, so tasks stay apart. p is the
    authors' ceil(n / E). With one token D is 1 and this is a dense mixture, which is why states, which are
    one token, take the `experts` torso instead.
    """

    def __init__(
        self, tokens: int, width: int, experts: int, hidden: int, generator: torch.Generator | None = None
    ) -> None:
        """n `tokens` of d = `width`, E `experts`."""
        super().__init__()
        self.experts = experts
        self.slots = math.ceil(tokens / experts)
        slots = experts * self.slots
        bound = math.sqrt(3.0 / width)
        self.route = BatchedLinear((), width, slots, bias=False, bound=bound, generator=generator)
        self.expert = Stack(
            (experts,), width, [hidden, width], activation="relu", activate_last=False, generator=generator
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """[K, B, n, d] -> [K, B, n, d]"""
        logits = self.route(tokens.flatten(1, 2)).unflatten(1, tokens.shape[1:3])
        logits = full_precision(logits)
        dispatch = torch.softmax(logits, dim=-2).to(tokens.dtype)
        combine = torch.softmax(logits, dim=-1).to(tokens.dtype)
        slots = dispatch.transpose(-1, -2) @ tokens
        by_expert = slots.unflatten(2, (self.experts, self.slots)).movedim(2, 0)
        done = self.expert(by_expert.flatten(2, 3)).unflatten(2, by_expert.shape[2:4])
        return combine @ done.movedim(0, 2).flatten(2, 3).to(combine.dtype)


class ObservationEncoder(TaskNormaliser):
    """Features of an observation: the standardised state, then those of the pixels."""

    def __init__(self, layout: Layout, pixels: PixelEncoderConfig, clip: float = 5.0) -> None:
        """Raises SpaceError for images that the convolutions cannot read."""
        super().__init__(layout, clip)
        self.pixels: PixelEncoder | None = None
        if layout.pixels_shape is not None:
            self.pixels = PixelEncoder(pixels, layout.pixels_shape)
        self.size = layout.state_size + (self.pixels.outputs if self.pixels is not None else 0)

    def forward(self, observation: Mapping[str, Bucket], count: int, samples: int) -> Tensor:
        """Buckets [K_b, B, ...], states standardised -> [K, B, size] for K = `count` tasks and B = `samples`
        of each; zeros for a task that does not fill a bucket.
        """
        parts = []
        if self.mean.shape[1]:
            if "state" in observation:
                state = observation["state"]
                parts.append(scatter_rows(state.values, state.rows, count))
            else:
                parts.append(self.mean.new_zeros(count, samples, self.mean.shape[1]))
        if self.pixels is not None:
            if "pixels" in observation:
                images = observation["pixels"]
                parts.append(scatter_rows(self.pixels(images.values), images.rows, count))
            else:
                parts.append(self.mean.new_zeros(count, samples, self.pixels.outputs))
            parts = [part.to(self.pixels.linear.weight.dtype) for part in parts]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def scatter_rows(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """[K_b, ...] -> [K, ...] for K = `count`: `values` in the ascending `rows` [K_b], zeros in the others."""
    if rows.shape[0] == count:
        return values
    return values.new_zeros(count, *values.shape[1:]).index_copy(0, rows, values)


def select_rows(values: Tensor, rows: Tensor, dim: int = 0) -> Tensor:
    """The ascending `rows` along `dim`; no copy where that is all of them."""
    return values if rows.shape[0] == values.shape[dim] else values.index_select(dim, rows)
