"""The diffusion agent: learns action chunks of many tasks from demonstrations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from mtrl.data import Batch, Bucket, Trajectories
from mtrl.distillation import ChunkLearner
from mtrl.errors import ConfigError
from mtrl.gradients import GradientSurgery, require_finite
from mtrl.nn import ChunkNetwork, arrays_of, begin_as
from mtrl.reducer import Reducer
from mtrl.rollout import ChunkPolicy, PolicySnapshot
from mtrl.spaces import Moments
from mtrl.tasks import TaskSet
from mtrl.training import State, Use

from .config import DiffusionConfig
from .objective import inverse_loss
from .objectives import objective_of
from .policy import network_of, policy_of


class DiffusionAgent(ChunkLearner[ChunkNetwork]):
    """A network of action chunks with a learned task embedding, trained by one of several objectives.

    Acts with the exponential moving average of its weights. Source of the method: Karras et al. 2022 (EDM),
    Chi et al. 2023 (diffusion policy: action chunks, receding horizon).
    """

    NAME, KEY, STREAM = "the diffusion agent", "network", 1

    def __init__(
        self,
        config: DiffusionConfig,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        parent: ChunkNetwork | None = None,
    ) -> None:
        """Begins with the weights of `parent` and its standardisation of states, which is then kept but for
        tasks that are new to it.
        """
        layout = tasks.layout
        if config.batch_size < layout.task_count * ranks or config.batch_size % ranks:
            whole = "" if ranks == 1 else f" on each of {ranks} ranks, and a multiple of their number"
            raise ConfigError(
                f"agent.batch_size={config.batch_size} is below the number of tasks, {layout.task_count}, or "
                f"ranks cannot share it; give every task at least one sample{whole}"
            )
        self._config, self._layout, self._ranks = config, layout, ranks
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = network_of(config, tasks)
        if parent is not None:
            begin_as(network, parent)
        super().__init__(
            network,
            config.network,
            tasks,
            seed,
            rank=rank,
            ranks=ranks,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            ema_decay=config.ema_decay,
            gradient_clip=config.gradient_clip,
            keeps_moments=parent is not None,
            stride=config.plan.stride,
        )
        self._horizons = [task.horizon_decisions for task in tasks]
        self._objective = objective_of(config, self._network)
        self._surgery: GradientSurgery | None = None
        if not config.gradients.plain:
            self._surgery = GradientSurgery(self._network, config.gradients, layout.task_count, seed)
        self._batch: Batch | None = None

    def policy(self) -> ChunkPolicy:
        """Acts with the averaged weights."""
        return policy_of(self._config, self._average, self.updates)

    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        """The averaged weights as named arrays."""
        tensors = arrays_of(self._average.state_dict())
        return PolicySnapshot("diffusion", dataclasses.asdict(self._config), tensors, self.updates)

    def update(self, reducer: Reducer) -> Mapping[str, float]:
        """One batch, a clipped AdamW step, and the weights' moving average."""
        self._data.require_ready()
        reducer.sums(self._draw, {})
        gradients, losses, surgery_metrics = self._gradients(reducer)
        count = float(self._layout.task_count)  # the loss is the mean over tasks
        mean = {name: value / count for name, value in gradients.items()}
        metrics = self._step(mean, float(losses.mean()), self._learning_rate())
        if self._surgery is not None and self._surgery.needs_post_step:
            with torch.no_grad():
                self._surgery.observe_post_step_losses(
                    self._losses, reducer=reducer, portion=self._data.portion
                )
        return {**metrics, **surgery_metrics}

    def task_cosines(self) -> Mapping[str, npt.NDArray[np.float64]]:
        """Cosines between the tasks' gradients since the last call, as of the one part, "network"."""
        cosines = None if self._surgery is None else self._surgery.take_cosines()
        return {} if cosines is None else {"network": cosines}

    def shared_state(self) -> State:
        """Weights, average, optimiser and surgery."""
        surgery = None if self._surgery is None else self._surgery.state_dict()
        return {**super().shared_state(), "surgery": surgery}

    def restore(self, shared: State, local: State | None) -> None:
        """Restores `shared_state`, and `local_state` unless None."""
        super().restore(shared, local)
        if self._surgery is not None and shared["surgery"] is not None:
            self._surgery.load_state_dict(shared["surgery"])

    def _select(self, data: Trajectories) -> Trajectories:
        """Episodes in which the success signal was ever on; all of them where returns are read."""
        if self._config.returns.dropout:
            return data
        counts = np.add.reduceat(data.success.astype(np.int64), data.offsets[:-1])
        return data if counts.all() else data.select(np.flatnonzero(counts))

    def _take_moments(self, moments: Moments) -> None:
        """Of tasks that the parent did not know too, whose own are NaN."""
        super()._take_moments(moments)
        for network in (self._network, self._average):
            for k in network.mean.isnan().any(1).nonzero().flatten().tolist():
                network.set_moments(moments, k)

    def _returns(self, data: Mapping[int, Trajectories]) -> Mapping[int, npt.NDArray[np.float64]] | None:
        """What episodes are ranked by, where returns are read."""
        if not self._config.returns.dropout:
            return None
        discount = self._config.returns.discount
        return {k: part.returns(discount, self._horizons[k]) for k, part in data.items()}

    def _draw(self) -> Mapping[str, torch.Tensor]:
        """Makes the batch of this update, noise among its fields; returns nothing that is summed."""
        batch = self._data.sample(self._config.batch_size // self._ranks, self._draws)
        fields = self._with_states(batch) if self._config.plan.stride else dict(batch.fields)
        if "quality" in fields:
            hidden = torch.rand(fields["quality"].shape, generator=self._noise) < self._config.returns.dropout
            fields["quality"] = fields["quality"].masked_fill(hidden, math.nan)
        drawn = self._objective.draw(fields["chunk"], self._noise)
        self._batch = dataclasses.replace(batch, fields={**fields, **drawn})
        return {}

    def _with_states(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The fields of a batch with future states beside the actions, and the weight of every entry: those
        of the states together weigh `plan.weight` times those of the actions.
        """
        fields, network, shape = dict(batch.fields), self._network, batch.weight.shape
        task = batch.task_index.repeat_interleave(shape[1])
        future, there = fields.pop("future"), fields.pop("future_real")
        states = network.encode_states(future.flatten(0, 1), task).unflatten(0, shape)
        mask = network.action_mask[batch.task_index]
        actions, dimensions = (part.sum(1) for part in mask.tensor_split([network.actions], dim=1))
        weight = (self._config.plan.weight * actions / dimensions)[:, None, None, None]
        real = fields["real"][..., None].expand_as(fields["chunk"])
        return {
            **fields,
            "chunk": torch.cat([fields["chunk"], states], dim=-1),
            "real": torch.cat([real, (weight * there[..., None]).expand_as(states)], dim=-1),
        }

    def _losses(self, row: int | None = None) -> torch.Tensor:
        """[K], of this rank's samples, or [1] of one row's task."""
        assert self._batch is not None, "the batch of this update is drawn first"
        batch = self._batch if row is None else _only(self._batch, row)
        return batch.task_losses(self._sample_losses(batch))

    def _loss_of(self, row: int) -> torch.Tensor:
        return self._losses(row)[0]

    def _gradients(
        self, reducer: Reducer
    ) -> tuple[Mapping[str, torch.Tensor], torch.Tensor, dict[str, float]]:
        """Parameter name -> gradient of the sum of the tasks' losses, or what the configured method makes of
        them; the losses [K]; and the metrics of surgery. Of all ranks' samples.
        """
        portion, surgery = self._data.portion, self._surgery
        if surgery is not None:
            # a fixed method: of two, the faster by the clock would change the numbers
            loss_of = self._loss_of if surgery.config.perturbation > 0 else None
            combined = surgery.step(self._losses, loss_of, reducer=reducer, portion=portion)
            surgery_metrics = {f"gradients/{name}": value for name, value in combined.metrics.items()}
            return combined.gradients, combined.losses, surgery_metrics

        def make() -> dict[str, torch.Tensor]:
            losses = self._losses()
            counted = losses
            if portion is not None:
                require_finite(losses, self.NAME, self.updates + 1)
                counted = losses * portion.to(losses)
            return self._backward(counted.sum()) | {"/losses": counted.detach()}

        sums = dict(reducer.sums(make, self._like(losses=(self._layout.task_count,))))
        return sums, sums.pop("/losses"), {}

    def _sample_losses(self, batch: Batch) -> torch.Tensor:
        """[K, B]"""
        states = batch.buckets["state"].values.flatten(0, 1)
        task = batch.task_index.repeat_interleave(batch.weight.shape[1])
        fields = {name: values.flatten(0, 1) for name, values in batch.fields.items()}
        losses = self._objective.losses(states, task, **fields)
        if self._network.inverse is not None:
            losses = losses + inverse_loss(
                self._network, states[:, -1], task, fields["chunk"], fields["real"]
            )
        return losses.unflatten(0, batch.weight.shape)

    def _learning_rate(self) -> float:
        """Linear warm-up, then a cosine to zero; constant without `decay_updates`."""
        config, step = self._config, self.updates
        if step < config.warmup:
            return config.learning_rate * (step + 1) / config.warmup
        if config.decay_updates == 0:
            return config.learning_rate
        span = max(1, config.decay_updates - config.warmup)
        progress = min(1.0, (step - config.warmup) / span)
        # rate_n = rate / 2 (1 + cos(pi progress_n))  (SGDR without restarts, Loshchilov and Hutter 2017)
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def _only(batch: Batch, row: int) -> Batch:
    """The batch of one task, whose observations are states."""
    state = batch.buckets["state"]
    return Batch(
        task_index=batch.task_index[row : row + 1],
        weight=batch.weight[row : row + 1],
        buckets={"state": Bucket(state.values[row : row + 1], state.rows[:1])},
        fields={name: values[row : row + 1] for name, values in batch.fields.items()},
    )
