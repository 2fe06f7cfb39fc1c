"""The one-forward student: (state history, task, z) -> action chunk."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mtrl.nn import ChunkNetwork, ChunkShape, PixelEncoderConfig, arrays_of, bounded, tensors_of
from mtrl.rollout import ChunkSpec, Execution, PolicySnapshot
from mtrl.spaces import Layout, Moments
from mtrl.structured import build
from mtrl.tasks import TaskSet

from .folded import FoldedStudent
from .reference import reference_chunk
from .teacher import FirstStep, spec_of


@dataclass(frozen=True)
class StudentForm:
    """What a student is rebuilt from, with its weights."""

    network: ChunkShape
    execution: Execution
    noise_size: int
    """Length of z; 0 for a teacher without noise."""
    first_step: FirstStep
    """How z enters and leaves the network."""
    pixels: PixelEncoderConfig = field(default_factory=PixelEncoderConfig)
    """Sizes of the encoder of images, where tasks have some."""


class Student(nn.Module):
    """chunk = clip(skip z + gain F(state history, task, scale z)), one forward pass of one network. In the
    columns of a discrete task's choices stands the softmax instead.

    A `ChunkSampler`, so that it can be distilled again, and a `ChunkModule`, so that it can be exported.
    """

    def __init__(self, form: StudentForm, layout: Layout) -> None:
        """Fresh weights, drawn from torch's generator."""
        super().__init__()
        self.form = form
        columns = form.noise_size // form.network.chunk
        # a teacher that plans states has noise for them too
        wide = columns > layout.continuous_size + layout.discrete_size
        self.network = ChunkNetwork(form.network, layout, plans_states=wide)

    @property
    def spec(self) -> ChunkSpec:
        """The sizes."""
        return spec_of(self.network, self.form.noise_size)

    @torch.no_grad()
    def sample(
        self, states: npt.NDArray[np.float32], task: npt.NDArray[np.int64], z: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """`forward` on arrays."""
        noise = torch.from_numpy(z) if self.form.noise_size else None
        chunk: npt.NDArray[np.float32] = self(torch.from_numpy(states), torch.from_numpy(task), noise).numpy()
        return chunk

    def forward(self, state: torch.Tensor, task: torch.Tensor, z: torch.Tensor | None = None) -> torch.Tensor:
        """`state` [N, h, D_max], `task` [N], `z` [N, Z] or None when Z = 0 -> [N, H, A_max] in [-1, 1]."""
        network = self.network
        mask = network.chunk_mask(task)[:, :, : network.actions]
        return bounded(self.unclipped(state, task, z), mask, network.choices)

    def unclipped(self, state: torch.Tensor, task: torch.Tensor, z: torch.Tensor | None) -> torch.Tensor:
        """The output before clipping, which is what the loss sees (clipping has no gradient)."""
        sizes = (self.form.network.chunk, self.network.columns)
        mask = self.network.chunk_mask(task)
        noise = torch.zeros_like(mask) if z is None else z.unflatten(1, sizes) * mask
        first = self.form.first_step
        level = state.new_full((1,), first.level).expand(task.shape[0])
        raw = self.network(self.network.condition(state, task), task, first.scale * noise, level)
        return (first.skip * noise + first.gain * raw)[:, :, : self.network.actions]

    def decide(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The first action [N, A_max], before clipping, from the present state [N, D_max] and task [N]."""
        state, task = inputs
        return self.unclipped(state[:, None], task, None)[:, 0]

    @property
    def execution(self) -> Execution:
        """How chunks are carried out."""
        return self.form.execution

    @property
    def moments(self) -> Moments:
        """Of the states, [K, D_max]."""
        return Moments(self.network.mean.numpy(), self.network.scale.numpy())

    def reference(
        self,
        state: npt.NDArray[np.generic],
        task: npt.NDArray[np.generic],
        z: npt.NDArray[np.generic] | None,
    ) -> npt.NDArray[np.float64]:
        """`forward` in numpy and float64."""
        form, columns = self.form, (self.network.actions, self.network.choices)
        return reference_chunk(
            self.snapshot(0).tensors, form.network, columns, form.first_step, state, task, z
        )

    def folded(self) -> FoldedStudent:
        """The same map with fewer operators, for export."""
        return FoldedStudent(self.network, self.form.first_step, bool(self.form.noise_size))

    def set_moments(self, moments: Moments) -> None:
        """Takes the standardisation statistics of states, [K, D_max] each."""
        self.network.set_moments(moments)

    def snapshot(self, version: int) -> PolicySnapshot:
        """The student as named arrays."""
        return PolicySnapshot("student", asdict(self.form), arrays_of(self.state_dict()), version)


def student_from(snapshot: PolicySnapshot, tasks: TaskSet) -> Student:
    """The student of a snapshot, ready to act."""
    student = Student(build(StudentForm, snapshot.config), tasks.layout)
    student.load_state_dict(tensors_of(snapshot.tensors))
    return student.requires_grad_(False).eval()
