"""The one-forward student: (state history, task, z) -> action chunk."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mtrl.nn import ChunkNetwork, ChunkShape
from mtrl.rollout import ChunkPolicy, Execution, PolicySnapshot
from mtrl.spaces import Layout
from mtrl.tasks import TaskSet

from .teacher import FirstStep


@dataclass(frozen=True)
class StudentForm:
    """What rebuilds a student beside its weights."""

    network: ChunkShape
    execution: Execution
    noise_size: int
    """Length of z; 0 when the teacher had nothing to choose."""
    first_step: FirstStep
    """How z enters and leaves the network."""

    @staticmethod
    def from_json(settings: dict[str, object]) -> StudentForm:
        """The form that `asdict` turned into JSON."""
        nested = dict(settings)
        parts = [nested[name] for name in ("network", "execution", "first_step")]
        network, execution, first_step = (part for part in parts if isinstance(part, dict))
        noise_size = nested["noise_size"]
        assert isinstance(noise_size, int)
        return StudentForm(ChunkShape(**network), Execution(**execution), noise_size, FirstStep(**first_step))


class Student(nn.Module):
    """chunk = clip(skip z + gain F(state history, task, scale z)), one forward pass of one network."""

    def __init__(self, form: StudentForm, layout: Layout) -> None:
        """A fresh student; `SameNoiseDistiller` teaches it."""
        super().__init__()
        self.form = form
        self.network = ChunkNetwork(form.network, layout)

    def forward(self, state: torch.Tensor, task: torch.Tensor, z: torch.Tensor | None = None) -> torch.Tensor:
        """`state` [N, h, D_max], `task` [N], `z` [N, Z] or None when Z = 0 -> [N, H, A_max] in [-1, 1]."""
        return self.unclipped(state, task, z).clamp(-1.0, 1.0)

    def unclipped(self, state: torch.Tensor, task: torch.Tensor, z: torch.Tensor | None) -> torch.Tensor:
        """The output before clipping, which is what the loss sees (clipping has no gradient)."""
        sizes = (self.form.network.chunk, self.network.actions)
        mask = self.network.chunk_mask(task)
        noise = torch.zeros_like(mask) if z is None else z.unflatten(1, sizes) * mask
        frame = self.form.first_step
        level = state.new_full((1,), frame.level).expand(task.shape[0])
        raw = self.network(self.network.condition(state, task), task, frame.scale * noise, level)
        return frame.skip * noise + frame.gain * raw

    def snapshot(self, version: int) -> PolicySnapshot:
        """The student as named arrays."""
        tensors = {name: value.detach().numpy().copy() for name, value in self.state_dict().items()}
        return PolicySnapshot("student", asdict(self.form), tensors, version)


def student_from(snapshot: PolicySnapshot, tasks: TaskSet) -> Student:
    """Rebuilds a student, ready to act."""
    student = Student(StudentForm.from_json(dict(snapshot.config)), tasks.layout)
    student.load_state_dict({name: torch.as_tensor(np.array(v)) for name, v in snapshot.tensors.items()})
    return student.requires_grad_(False).eval()


def student_policy(snapshot: PolicySnapshot, tasks: TaskSet) -> ChunkPolicy:
    """The student behind the policy contract; the entry point `student` of the group mtrl.policies."""
    student = student_from(snapshot, tasks)
    form = student.form

    @torch.no_grad()
    def plan(
        states: npt.NDArray[np.float32], task: npt.NDArray[np.int64], z: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        noise = torch.from_numpy(z) if form.noise_size else None
        chunk: npt.NDArray[np.float32] = student(
            torch.from_numpy(states), torch.from_numpy(task), noise
        ).numpy()
        return chunk

    return ChunkPolicy(
        plan,
        history=form.network.history,
        state_size=tasks.layout.state_size,
        chunk=form.network.chunk,
        actions=tasks.layout.continuous_size,
        noise_size=form.noise_size,
        execution=form.execution,
        version=snapshot.version,
    )
