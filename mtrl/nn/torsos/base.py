"""What every torso has in common: shapes, ensembles, the task embedding, and recording."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mtrl.errors import SpaceError

from ..layers import Leading, Stack
from ..task_embedding import TaskEmbedding
from .config import TorsoConfig


class Torso(nn.Module, ABC):
    """Task-major features to hidden features: [K, B, inputs], task_index [K] -> [K, B, width].

    With `members` = N it is an ensemble of N independent torsos computed as one: features [K, B, inputs]
    are read by all, [N, K, B, inputs] one each, and the output is [N, K, B, width].
    """

    appends_task = False
    """Whether `task_input` puts the task embedding beside the features; other kinds use it otherwise."""

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
        self.inputs = inputs
        self.tasks = tasks
        self.members = members
        self.leading = (members or 1,)
        self.embedding = TaskEmbedding(config.embedding, tasks, leading=self.leading, generator=generator)
        self._records: list[tuple[str, Tensor]] | None = None
        self._build(generator)

    @abstractmethod
    def _build(self, generator: torch.Generator | None) -> None:
        """Makes the layers of this kind, after everything above is there."""

    def _hidden_stack(
        self,
        leading: Leading,
        inputs: int,
        generator: torch.Generator | None,
        *,
        activate_last: bool = True,
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

    @property
    def width(self) -> int:
        """Length of the output."""
        return self.config.width

    @abstractmethod
    def transform(self, features: Tensor, task_index: Tensor, embedding: Tensor) -> Tensor:
        """[N, K, B, entry], [K], [N, K, 1, e] -> [N, K, B, width]"""

    def forward(
        self,
        features: Tensor | tuple[Tensor, ...],
        task_index: Tensor,
        embedding: Tensor | None = None,
    ) -> Tensor:
        """`embedding` [K, e] or [N, K, e] takes the place of the torso's own task embedding; `features` may
        come in parts, to be put side by side.

        Raises SpaceError for features of another shape.
        """
        parts = features if isinstance(features, tuple) else (features,)
        self._check(parts, task_index)
        first = parts[0]
        told = self.embedding(task_index, embedding).to(first.dtype) if self.reads_task else first[..., :0]
        joins = self._joins_task
        # what all members read alike is put together once
        alike = self.embedding.table is None and (embedding is None or embedding.dim() == 2)
        if joins and first.dim() == 3 and alike:
            parts, joins = (*parts, told[0].expand(*first.shape[:-1], -1)), False
        whole = first if len(parts) == 1 else torch.cat(parts, dim=-1)
        if whole.dim() == 3:
            whole = whole.expand(*self.leading, *whole.shape)
        if joins:
            whole = torch.cat([whole, told.expand(*whole.shape[:-1], -1)], dim=-1)
        hidden = self.transform(whole, task_index, told)
        return hidden.squeeze(0) if self.members is None else hidden

    @property
    def reads_task(self) -> bool:
        """Whether the task embedding is asked for at all."""
        return self.config.task_input or self.config.kind not in ("mlp", "multi_head", "residual")

    def mixture(self, task_index: Tensor) -> Tensor:
        """[N, K, 1, J], the weights of a composed output layer; only PaCo has them."""
        raise SpaceError(f"a torso of kind {self.config.kind} mixes no parameter sets")

    def reset_tasks(
        self,
        losses: Tensor,
        task_index: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Gives tasks that have run away a new beginning; call it after an update with its losses [K].

        Returns [K], True for tasks that were reset, whose losses should have no part in the update: ask
        `runaway` before it. Only PaCo resets; nothing happens in others.
        """
        return self.runaway(losses)

    def runaway(self, losses: Tensor) -> Tensor:
        """losses [K] -> [K], True for tasks that `reset_tasks` would reset; only PaCo has such."""
        return torch.zeros(losses.shape, dtype=torch.bool, device=losses.device)

    def balance_loss(self) -> Tensor | None:
        """The auxiliary loss of the latest training forward, forgotten once read; None for most.

        It mixes the samples of all tasks, so it stands outside their losses: add its gradient to the
        combined one, taken while the forward's graph, which it shares, is still there.
        """
        return None

    def update_balance(self) -> None:
        """Moves selection biases by the loads since the last call; once per update. No-op for most."""

    @contextmanager
    def record(self) -> Iterator[list[tuple[str, Tensor]]]:
        """Collects what forward passes inside it note, detached, in order.

        ("hidden", [N, (E,) K, B, d]) after each activation, ("gates", [N, K, B, E]) the mixing weights,
        and ("experts", [N, E, K, B, d]) what was mixed.
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

    def note(self, name: str, value: Tensor) -> None:
        """Keeps `value` while `record` is open."""
        if self._records is not None:
            self._records.append((name, value.detach()))

    @property
    def entry(self) -> int:
        """Length of the features that `transform` is given."""
        return self.inputs + (self.embedding.size if self._joins_task else 0)

    @property
    def _joins_task(self) -> bool:
        """Whether the task embedding is put beside the features."""
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
