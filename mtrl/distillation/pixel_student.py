"""The student of tasks of which some are seen as images: (state, image, task) -> one decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mtrl.nn import ChunkNetwork, PixelEncoder, arrays_of, tensors_of
from mtrl.rollout import Acting, Action, Extra, PolicySnapshot, PolicyState
from mtrl.spaces import Layout, Moments, Observation, ObservationSpec
from mtrl.structured import build
from mtrl.tasks import TaskSet

from .student import Student, StudentForm


class PixelStudent(nn.Module):
    """A `Student` of single decisions whose state is followed by the features of the image, which are 0 for
    a task without images.

    Takes a tensor for every bucket of the layout, in its order, then the task, as controllers do (see
    `mtrl.training.ServesMore`).
    """

    filled: torch.Tensor

    def __init__(self, form: StudentForm, layout: Layout) -> None:
        """Fresh weights, drawn from torch's generator. Raises SpaceError for images that the convolutions
        cannot read.
        """
        super().__init__()
        assert layout.pixels_shape is not None, "a layout without pixels has a Student"
        self.form, self._buckets, self._states = form, layout.buckets, layout.state_size
        self.encoder = PixelEncoder(form.pixels, layout.pixels_shape)
        wide = ObservationSpec(state=layout.state_size + self.encoder.outputs)
        self.student = Student(form, Layout((wide,) * layout.task_count, layout.actions))
        filled = [spec.pixels is not None for spec in layout.observations]
        self.register_buffer("filled", torch.tensor(filled, dtype=torch.float32))

    @property
    def network(self) -> ChunkNetwork:
        """The network behind the encoder."""
        return self.student.network

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """state [N, D_max] and pixels uint8 [N, C, H, W], those that the layout has, and task [N] -> [N, A]:
        actions in [-1, 1], then the probability of every choice; 0 in columns of other tasks.
        """
        chunk: torch.Tensor = self.student(self._seen(*inputs), inputs[-1])
        return chunk[:, 0]

    def decide(self, *inputs: torch.Tensor) -> torch.Tensor:
        """As `forward`, before clipping, with logits for probabilities."""
        return self.student.unclipped(self._seen(*inputs), inputs[-1], None)[:, 0]

    def set_moments(self, moments: Moments) -> None:
        """Takes the standardisation statistics of states, [K, D_max] each."""
        network = self.network
        network.mean[:, : self._states] = torch.as_tensor(moments.mean)
        network.scale[:, : self._states] = torch.as_tensor(moments.scale)

    def snapshot(self, version: int) -> PolicySnapshot:
        """The student as named arrays."""
        return PolicySnapshot("student", asdict(self.form), arrays_of(self.state_dict()), version)

    def _seen(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Buckets and task -> [N, 1, D_max + features]."""
        *observed, task = inputs
        parts = [
            values
            if bucket == "state"
            else self.encoder(values.unsqueeze(1)).squeeze(1) * self.filled[task][:, None]
            for bucket, values in zip(self._buckets, observed, strict=True)
        ]
        return torch.cat(parts, dim=1).unsqueeze(1)


class PixelStudentPolicy:
    """Acts with a `PixelStudent`, without memory and without noise."""

    extras: tuple[Extra, ...] = ()

    def __init__(self, student: PixelStudent, layout: Layout, version: int = 0) -> None:
        """Of the layout that the student was made for."""
        self.student, self.version, self._layout = student, version, layout

    def initial_state(self, count: int) -> PolicyState:
        """None."""
        return {}

    @torch.no_grad()
    def act(
        self,
        observation: Observation,
        task_index: npt.NDArray[np.int64],
        state: PolicyState,
        ended: npt.NDArray[np.bool_],
        *,
        acting: Acting,
        generators: Sequence[np.random.Generator],
    ) -> Action:
        """The action, or the choice of the highest probability."""
        seen = [torch.from_numpy(np.asarray(observation[bucket])) for bucket in self._layout.buckets]
        columns = self.student(*seen, torch.from_numpy(task_index)).numpy()
        continuous, scores = np.split(columns, [self._layout.continuous_size], axis=1)
        best = scores.argmax(1) if scores.shape[1] else np.zeros(len(columns), dtype=np.int64)
        # scores that are not finite are no choice, which the lane refuses
        return Action(continuous, np.where(np.isfinite(scores).all(1), best, -1), {})


def pixel_student_policy(snapshot: PolicySnapshot, tasks: TaskSet) -> PixelStudentPolicy:
    """The policy of the snapshot of a student that sees images."""
    student = PixelStudent(build(StudentForm, snapshot.config), tasks.layout)
    student.load_state_dict(tensors_of(snapshot.tensors))
    return PixelStudentPolicy(student.requires_grad_(False).eval(), tasks.layout, snapshot.version)
