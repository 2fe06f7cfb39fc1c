"""A torso and its output layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtrl.errors import SpaceError, UnknownNameError

from .layers import BatchedLinear, ComposedLinear, TaskLinear
from .torsos.build import build_torso
from .torsos.config import TorsoConfig


class TaskNetwork(nn.Module):
    """One torso under one linear output layer per name, e.g. {"continuous": 8, "discrete": 18}.

    ::

        critic = TaskNetwork(TorsoConfig(), inputs=49, outputs={"value": 101}, tasks=10, members=2)
        logits = critic.read("value", critic.torso(features, task_index), task_index)  # [2, K, B, 101]

    Output layers are shared, one per task or composed, as `config.output` says. Weights start as
    U(+-output_bound) and biases at zero.
    """

    def __init__(
        self,
        config: TorsoConfig,
        inputs: int,
        outputs: Mapping[str, int],
        tasks: int,
        members: int | None = None,
        generator: torch.Generator | None = None,
        served: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        """`inputs` features per sample, T `tasks` in the set, N `members` of an ensemble or None.

        `served` names the tasks that an output is for, where those are not all: a layer per task then
        has rows for them alone.
        """
        super().__init__()
        self.torso = build_torso(config, inputs, tasks, members, generator)
        self.members = members
        lead, width = self.torso.leading, self.torso.width
        self.outputs = nn.ModuleDict()
        self._served: dict[str, list[int]] = {}
        self._latest: dict[str, tuple[Tensor, Tensor | None]] = {}
        for name, size in outputs.items():
            its_tasks = list(range(tasks)) if served is None or name not in served else list(served[name])
            row = torch.zeros(tasks, dtype=torch.int64)
            row[its_tasks] = torch.arange(len(its_tasks))
            self.register_buffer(f"row_of_{name}", row, persistent=False)
            self._served[name] = its_tasks
            layer, leading = {
                "task": (TaskLinear, (*lead, len(its_tasks))),
                "composed": (ComposedLinear, (*lead, config.paco.sets)),
                "shared": (BatchedLinear, lead),
            }[config.output_kind]
            self.outputs[name] = layer(leading, width, size, bound=config.output_bound, generator=generator)

    def tasks_of(self, name: str) -> list[int]:
        """The tasks that output `name` is for, in the order of its layers."""
        return list(self._served[name])

    def read(self, name: str, hidden: Tensor, task_index: Tensor) -> Tensor:
        """Output layer `name` on hidden [K, B, width] (or [N, K, B, width]) -> [..., K, B, size].

        `hidden` may hold a selection of the torso's tasks, `task_index` then names those.
        Raises UnknownNameError and SpaceError.
        """
        if name not in self.outputs:
            raise UnknownNameError("output", name, list(self.outputs))
        if hidden.shape[-3] != task_index.shape[0]:
            raise SpaceError(
                f"output {name}: {hidden.shape[-3]} rows of hidden features for {task_index.shape[0]} tasks"
            )
        wide = hidden.unsqueeze(0) if self.members is None else hidden
        layer = self.outputs[name]
        if isinstance(layer, TaskLinear):
            out = layer(wide, self._rows(name, task_index))
        elif isinstance(layer, ComposedLinear):
            out = layer(wide, self.torso.mixture(task_index))
        else:
            out = layer(wide)
        return out.squeeze(0) if self.members is None else out

    def _rows(self, name: str, task_index: Tensor) -> Tensor | None:
        """Where output `name` keeps the layers of these tasks; None for all of them in order.

        Looked up once for an index tensor that is used again and again, as training batches do; it must
        not be written over in between.
        """
        exporting = torch.onnx.is_in_onnx_export()
        cached = None if exporting else self._latest.get(name)
        if cached is not None and cached[0] is task_index:
            return cached[1]
        rows: Tensor | None = getattr(self, f"row_of_{name}")[task_index]
        if exporting:
            return rows
        if task_index.tolist() == self._served[name]:
            rows = None
        self._latest[name] = (task_index, rows)
        return rows

    def forward(
        self, features: Tensor | tuple[Tensor, ...], task_index: Tensor, embedding: Tensor | None = None
    ) -> dict[str, Tensor]:
        """[K, B, inputs], task_index [K] -> every output by name, [..., K, B, size] each."""
        hidden = self.torso(features, task_index, embedding)
        return {name: self.read(name, hidden, task_index) for name in self.outputs}
