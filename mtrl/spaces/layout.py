"""The unified layout: heterogeneous observations and actions of many tasks in shared, masked arrays.

Buckets by modality. `state` is float32, padded to the longest task with zeros, with a mask; `pixels`
is uint8 of one declared shape. Vectors are never padded into pixels. Continuous actions are padded
to the widest task in [-1, 1] with a mask; discrete actions are an index with a legal mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mtrl.errors import SpaceError

from .specs import ActionSpec, ObservationSpec

Observation = dict[str, npt.NDArray[np.generic]]
"""Bucket name -> array with a leading copy axis: `state` float32 [N, D_max], `pixels` uint8 [N, C, H, W].

Every bucket of the layout is present; a bucket that a task does not fill holds zeros for it.
"""


@dataclass(frozen=True, eq=False)
class Layout:
    """Sizes and masks shared by every task of one TaskSet; row k of a mask belongs to task index k."""

    observations: tuple[ObservationSpec, ...]
    actions: tuple[ActionSpec, ...]

    def __post_init__(self) -> None:
        if not self.observations or len(self.observations) != len(self.actions):
            raise SpaceError("a layout needs one observation and one action spec per task, at least one task")
        shapes = sorted({spec.pixels for spec in self.observations if spec.pixels is not None})
        if len(shapes) > 1:
            came = " and ".join("x".join(map(str, shape)) for shape in shapes)
            raise SpaceError(
                f"the images of one layout have one shape (channels x height x width); got {came}. "
                "Give every suite the same pixel size, colours and frame stack"
            )

    @property
    def task_count(self) -> int:
        """Number of tasks K."""
        return len(self.observations)

    @cached_property
    def state_size(self) -> int:
        """D_max, the padded length of the state bucket; 0 when no task has a state."""
        return max((spec.state or 0) for spec in self.observations)

    @cached_property
    def pixels_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) of the pixel bucket, or None when no task has pixels."""
        return next((spec.pixels for spec in self.observations if spec.pixels is not None), None)

    @cached_property
    def continuous_size(self) -> int:
        """A_max, the padded width of continuous actions; 0 when every task is discrete."""
        return max(spec.continuous for spec in self.actions)

    @cached_property
    def discrete_size(self) -> int:
        """Largest number of discrete actions; 0 when every task is continuous."""
        return max(spec.discrete for spec in self.actions)

    @cached_property
    def buckets(self) -> tuple[str, ...]:
        """Names of the buckets that at least one task fills."""
        present = (("state", self.state_size > 0), ("pixels", self.pixels_shape is not None))
        return tuple(name for name, there in present if there)

    @cached_property
    def state_mask(self) -> npt.NDArray[np.bool_]:
        """Shape [K, D_max]; True where the task has a state entry."""
        return _prefix_mask([spec.state or 0 for spec in self.observations], self.state_size)

    @cached_property
    def continuous_mask(self) -> npt.NDArray[np.bool_]:
        """Shape [K, A_max]; True where the task has an action dimension."""
        return _prefix_mask([spec.continuous for spec in self.actions], self.continuous_size)

    @cached_property
    def legal_mask(self) -> npt.NDArray[np.bool_]:
        """Shape [K, discrete_size]; True where the index is an action of the task."""
        return _prefix_mask([spec.discrete for spec in self.actions], self.discrete_size)

    @cached_property
    def discrete_tasks(self) -> npt.NDArray[np.bool_]:
        """Shape [K]; True where the task is discrete."""
        return np.array([spec.is_discrete for spec in self.actions])

    def members(self, bucket: str) -> npt.NDArray[np.int64]:
        """Indices of the tasks that fill `bucket`, ascending; shape [K_b]."""
        rows = [k for k, spec in enumerate(self.observations) if bucket in spec.buckets]
        return np.array(rows, dtype=np.int64)

    def bucket_shape(self, bucket: str) -> tuple[int, ...]:
        """Shape of one observation in `bucket`, without the copy axis."""
        if bucket == "state" and self.state_size:
            return (self.state_size,)
        if bucket == "pixels" and self.pixels_shape is not None:
            return self.pixels_shape
        raise SpaceError(f"this layout has no bucket {bucket!r}; it has {list(self.buckets)}")

    def bucket_dtype(self, bucket: str) -> np.dtype[np.generic]:
        """Element type of `bucket`: float32 for state, uint8 for pixels."""
        self.bucket_shape(bucket)
        return np.dtype(np.float32 if bucket == "state" else np.uint8)

    def zeros(self, *leading: int) -> Observation:
        """A fresh observation with the given leading axes, every bucket zero."""
        return {
            bucket: np.zeros((*leading, *self.bucket_shape(bucket)), dtype=self.bucket_dtype(bucket))
            for bucket in self.buckets
        }

    def native_state(self, task_index: int, padded: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """The unpadded tail axis of a state array [..., D_max] for one task: [..., D_task], a view."""
        return padded[..., : self.observations[task_index].state or 0]

    def pad_state(self, native: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """[..., D_task] -> [..., D_max], zeros where the mask is False."""
        return _padded(native, self.state_size)

    def pad_continuous(self, native: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """[..., A_task] -> [..., A_max], zeros where the mask is False."""
        return _padded(native, self.continuous_size)


def _padded(native: npt.NDArray[np.generic], width: int) -> npt.NDArray[np.float32]:
    padded = np.zeros((*native.shape[:-1], width), dtype=np.float32)
    padded[..., : native.shape[-1]] = native
    return padded


def _prefix_mask(lengths: Sequence[int], width: int) -> npt.NDArray[np.bool_]:
    return np.arange(width)[None, :] < np.array(lengths)[:, None]
