"""What every torso has in common: shapes, ensembles, the task embedding, and recording."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mtrl.errors import SpaceError

from ..layers import LayerNorm, Leading, Stack
from ..task_embedding import TaskEmbedding
from .config import TorsoConfig


class Torso(nn.Module, ABC):
    """Task-major features to hidden features: [K, B, inputs], task_index [K] -> [K, B, width].

    With `members` = N it is an ensemble of N independent torsos computed as one: features [K, B, inputs]
    are read by all, [N, K, B, inputs] one each, and the output is [N, K, B, width].
    """

    appends_task = False
    """Whether `task_input` appends the task embedding to the features; other kinds use it otherwise."""
    natural_output: ClassVar[str] = "shared"
    """The output layer of `output=auto`: "shared", "task" (one per task) or "composed"."""
    config_class: ClassVar[type | None] = None
    """Frozen dataclass of the settings under `options`, of a torso of another package; None takes none."""

    def __init__(
        self,
        config: TorsoConfig,
        inputs: int,
        tasks: int,
        members: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """`tasks` is T, the number of tasks in the set, of which a call sees any K."""
        super().__init__()
        self.config = config
        self.settings: Any = config.own_settings()
        self.inputs = inputs
        self.tasks = tasks
        self.members = members
        self.leading = (members or 1,)
        self.embedding = TaskEmbedding(config.embedding, tasks, leading=self.leading, generator=generator)
        self._records: list[tuple[str, Tensor]] | None = None
        self._build(generator)

    @abstractmethod
    def _build(self, generator: torch.Generator | None) -> None:
        """Makes the layers of this kind."""

    def _hidden_stack(
        self, leading: Leading, inputs: int, generator: torch.Generator | None, *, activate_last: bool = True
    ) -> Stack:
        """`depth` layers of `width` as the common fields of the config describe them."""
        config = self.config
        return Stack(
            leading,
            inputs,
            [config.width] * config.depth,
            activation=config.activation,
            norm=config.layer_norm,
            affine=config.norm_affine,
            activate_last=activate_last,
            generator=generator,
        )

    def _linear_stack(
        self, leading: Leading, inputs: int, widths: Sequence[int], generator: torch.Generator | None
    ) -> Stack:
        """Layers of `widths` without norms, the last one linear."""
        activation = self.config.activation
        return Stack(leading, inputs, widths, activation=activation, activate_last=False, generator=generator)

    def _hidden_layers(self, linear: Callable[[int], nn.Module]) -> tuple[nn.ModuleList, nn.ModuleList]:
        """`depth` layers that `linear` makes for an input length, and their LayerNorms, if any."""
        config, linears, norms = self.config, nn.ModuleList(), nn.ModuleList()
        for depth in range(config.depth):
            linears.append(linear(config.width if depth else self.inputs))
            if config.layer_norm:
                norms.append(LayerNorm(self.leading, config.width, affine=config.norm_affine))
        return linears, norms

    @property
    def width(self) -> int:
        """Length of the output."""
        return self.config.width

    @abstractmethod
    def transform(self, features: Tensor, task_index: Tensor, embedding: Tensor) -> Tensor:
        """[N, K, B, entry], [K], [N, K, 1, e] -> [N, K, B, width]"""

    def forward(
        self, features: Tensor | tuple[Tensor, ...], task_index: Tensor, embedding: Tensor | None = None
    ) -> Tensor:
        """`embedding` [K, e] or [N, K, e] replaces the torso's own task embedding; `features` in parts are
        joined.

        Raises SpaceError for features of another shape.
        """
        parts = features if isinstance(features, tuple) else (features,)
        self._check(parts, task_index)
        first = parts[0]
        task = self.embedding(task_index, embedding).to(first.dtype) if self.reads_task else first[..., :0]
        joins = self._joins_task
        # what all members read alike is joined once
        alike = self.embedding.table is None and (embedding is None or embedding.dim() == 2)
        if joins and first.dim() == 3 and alike:
            parts, joins = (*parts, task[0].expand(*first.shape[:-1], -1)), False
        joined = first if len(parts) == 1 else torch.cat(parts, dim=-1)
        if joined.dim() == 3:
            joined = joined.expand(*self.leading, *joined.shape)
        if joins:
            joined = torch.cat([joined, task.expand(*joined.shape[:-1], -1)], dim=-1)
        hidden = self.transform(joined, task_index, task)
        return hidden.squeeze(0) if self.members is None else hidden

    @property
    def reads_task(self) -> bool:
        """Whether the torso uses the task embedding."""
        return self.config.task_input or self.config.kind not in ("mlp", "multi_head", "residual")

    def mixture(self, task_index: Tensor) -> Tensor:
        """[N, K, 1, J], the weights of a composed output layer; only PaCo has them."""
        raise SpaceError(f"a torso of kind {self.config.kind} mixes no parameter sets")

    def reset_tasks(
        self, losses: Tensor, task_index: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Resets tasks whose loss diverged, after an update with its losses [K]; returns [K], True for those
        that were reset, the same as `diverged` before the update. Only PaCo resets.
        """
        return self.diverged(losses)

    def diverged(self, losses: Tensor) -> Tensor:
        """losses [K] -> [K], True for tasks that `reset_tasks` would reset; only PaCo has such."""
        return torch.zeros(losses.shape, dtype=torch.bool, device=losses.device)

    def balance_loss(self) -> Tensor | None:
        """The auxiliary loss of the latest training forward, returned once; None for most. It mixes the
        samples of all tasks, so it is no part of their losses, and it shares the forward's graph.
        """
        return None

    def update_balance(self) -> None:
        """Moves selection biases by the loads since the last call; once per update. No-op for most."""

    @contextmanager
    def record(self) -> Iterator[list[tuple[str, Tensor]]]:
        """Collects what forward passes inside it record, detached, in order: ("hidden", [N, (E,) K, B, d])
        after each activation, ("gates", [N, K, B, E]) the mixing weights, ("experts", [N, E, K, B, d]) their
        values.
        """
        self._records = []
        try:
            yield self._records
        finally:
            self._records = None

    @property
    def recording(self) -> bool:
        """Whether `record` is open."""
        return self._records is not None

    def add_record(self, name: str, value: Tensor) -> None:
        """Keeps `value` while `record` is open."""
        if self._records is not None:
            self._records.append((name, value.detach()))

    @property
    def entry(self) -> int:
        """Length of the features that `transform` is given."""
        return self.inputs + (self.embedding.size if self._joins_task else 0)

    @property
    def _joins_task(self) -> bool:
        """Whether the task embedding is appended to the features."""
        return self.appends_task and self.config.task_input

    def _check(self, parts: tuple[Tensor, ...], task_index: Tensor) -> None:
        shape, width = parts[0].shape, 0
        fits = len(shape) in (3, 4) and shape[-3] == task_index.shape[0]
        for part in parts if fits else ():
            fits = fits and part.shape[:-1] == shape[:-1]
            width += part.shape[-1]
        if not fits or width != self.inputs or (len(shape) == 4 and shape[0] != self.leading[0]):
            ensemble = "" if self.members is None else f", or [{self.members}, K, B, {self.inputs}]"
            raise SpaceError(
                f"features [K, B, {self.inputs}]{ensemble} with K={len(task_index)} task indices are "
                f"expected; got {' and '.join(str(list(part.shape)) for part in parts)}"
            )
