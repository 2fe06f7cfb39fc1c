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


@dataclass(frozen=True)
class StudentForm:
    """What rebuilds a student beside its weights."""

    network: ChunkShape
    execution: Execution
    noise_size: int
    """Length of z; 0 when the teacher had nothing to choose."""
    skip: float
    """Share of z in the output before the network's correction."""
    gain: float
    """Factor of the network's raw output."""
    level: float
    """Constant noise level the network is told."""

    @staticmethod
    def from_json(settings: dict[str, object]) -> StudentForm:
        """The form that `asdict` turned into JSON."""
        nested = dict(settings)
        network, execution = nested.pop("network"), nested.pop("execution")
        assert isinstance(network, dict) and isinstance(execution, dict)
        return StudentForm(network=ChunkShape(**network), execution=Execution(**execution), **nested)  # type: ignore[arg-type]


class Student(nn.Module):
    """chunk = clip(skip z + gain F(state history, task, z)), one forward pass of one network."""

    def __init__(self, form: StudentForm, layout: Layout) -> None:
        """A fresh student; see `same_noise.distil` for how it learns."""
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
        level = state.new_full((1,), self.form.level).expand(task.shape[0])
        raw = self.network(self.network.condition(state, task), task, noise, level)
        return self.form.skip * noise + self.form.gain * raw

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
