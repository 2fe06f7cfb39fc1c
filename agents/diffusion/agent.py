"""The diffusion agent: learns action chunks of many tasks from demonstrations."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from mtrl.data import Batch, Bucket, RankDataset, Trajectories
from mtrl.errors import ConfigError, DivergenceError
from mtrl.gradients import GradientSurgery, require_finite
from mtrl.nn import ChunkNetwork, require_continuous_states, update_average
from mtrl.reducer import Reducer
from mtrl.rollout import ChunkPolicy, EpisodeGroup, Fragment, PolicySnapshot
from mtrl.tasks import TaskSet
from mtrl.training import Datasets, State, Use

from .config import DiffusionConfig
from .losses import denoising_loss, draw_sigma, regression_loss
from .policy import build_policy

if TYPE_CHECKING:
    from mtrl.evaluation import EvaluationResult


class DiffusionAgent:
    """EDM denoising of action chunks with a learned task embedding, or cloning by squared error.

    Acts with the exponential moving average of its weights. Source of the method: Karras et al. 2022 (EDM),
    Chi et al. 2023 (diffusion policy: action chunks, receding horizon).
    """

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
        """Begins with the weights of `parent` and its standardisation of states, which then stays. Raises
        UnsupportedError for tasks with pixels or discrete actions.
        """
        require_continuous_states(tasks, "the diffusion agent")
        layout = tasks.layout
        if config.batch_size < layout.task_count * ranks or config.batch_size % ranks:
            whole = "" if ranks == 1 else f" on each of {ranks} ranks, and a multiple of their number"
            raise ConfigError(
                f"agent.batch_size={config.batch_size} is below the number of tasks, {layout.task_count}, or "
                f"ranks cannot share it; give every task at least one sample{whole}"
            )
        self.updates = 0
        self._config, self._layout, self._ranks = config, layout, ranks
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._network = ChunkNetwork(config.network, layout)
        self._keeps_moments = parent is not None
        if parent is not None:
            _begin_as(self._network, parent)
        self._average = copy.deepcopy(self._network).requires_grad_(False).eval()
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._surgery: GradientSurgery | None = None
        if not config.gradients.plain:
            self._surgery = GradientSurgery(self._network, config.gradients, layout.task_count, seed)
        self._draws = np.random.default_rng([seed, 1, rank] if rank else [seed, 1])
        self._noise = torch.Generator().manual_seed(seed + 1 + 1_000_003 * rank)
        shape = config.network
        self._data = RankDataset(layout, shape.history, shape.chunk, ranks, "the diffusion agent")
        self._batch: tuple[Batch, torch.Tensor, torch.Tensor] | None = None

    def policy(self) -> ChunkPolicy:
        """Acts with the averaged weights."""
        return build_policy(self._config, self._average, self.updates)

    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        """The averaged weights as named arrays."""
        tensors = {name: value.detach().numpy().copy() for name, value in self._average.state_dict().items()}
        return PolicySnapshot("diffusion", asdict(self._config), tensors, self.updates)

    def ingest(self, data: Fragment | EpisodeGroup | Datasets) -> None:
        """Takes demonstrations; imitates successful episodes."""
        if not isinstance(data, Datasets):
            raise ConfigError("the diffusion agent learns from demonstrations (Datasets)")
        self._data.ingest({k: _successful(part) for k, part in data.trajectories.items()})

    def due(self, steps: int, reducer: Reducer) -> int:
        """All updates that were granted, once the demonstrations are there."""
        if not self._data.ready and self._data.agree(reducer) and not self._keeps_moments:
            for network in (self._network, self._average):
                network.set_moments(self._data.moments)
        return max(0, steps - self.updates) if self._data.ready else 0

    def on_evaluation(self, step: int, result: EvaluationResult) -> None:
        """Nothing follows from it."""

    def update(self, reducer: Reducer) -> Mapping[str, float]:
        """One batch, a clipped AdamW step, and the weights' moving average."""
        self._data.require_ready()
        reducer.sums(self._draw, {})
        gradients, losses, surgery_metrics = self._gradients(reducer)
        for name, parameter in self._network.named_parameters():
            parameter.grad = gradients[name] / float(self._layout.task_count)
        norm = torch.nn.utils.clip_grad_norm_(self._network.parameters(), self._config.gradient_clip)
        loss = float(losses.mean())
        if not math.isfinite(loss) or not torch.isfinite(norm):
            raise DivergenceError(
                "the diffusion agent", self.updates + 1, f"loss {loss}, gradient norm {float(norm)}"
            )
        rate = self._learning_rate()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self.updates += 1
        # A short memory at first, so that the average does not start from the initial weights.
        decay = min(self._config.average_decay, (1 + self.updates) / (10 + self.updates))
        update_average(self._average, self._network, decay)
        if self._surgery is not None and self._surgery.needs_post_step:
            with torch.no_grad():
                self._surgery.observe_post_step_losses(
                    self._losses, reducer=reducer, portion=self._data.portion
                )
        return {"loss": loss, "gradient_norm": float(norm), "learning_rate": rate, **surgery_metrics}

    def task_cosines(self) -> Mapping[str, npt.NDArray[np.float64]]:
        """Cosines between the tasks' gradients since the last call, as of the one part, "network"."""
        found = None if self._surgery is None else self._surgery.take_cosines()
        return {} if found is None else {"network": found}

    def shared_state(self) -> State:
        """Weights, average, optimiser and surgery."""
        return {
            "network": dict(self._network.state_dict()),
            "average": dict(self._average.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "updates": self.updates,
            "surgery": None if self._surgery is None else self._surgery.state_dict(),
        }

    def local_state(self) -> State:
        """Random states; the demonstrations are stored beside the run."""
        return {"draws": self._draws.bit_generator.state, "noise": self._noise.get_state()}

    def restore(self, shared: State, local: State | None) -> None:
        """Restores both."""
        self._network.load_state_dict(shared["network"])
        self._average.load_state_dict(shared["average"])
        self._optimizer.load_state_dict(shared["optimizer"])
        self.updates = shared["updates"]
        if self._surgery is not None and shared["surgery"] is not None:
            self._surgery.load_state_dict(shared["surgery"])
        if local is not None:
            self._draws.bit_generator.state = local["draws"]
            self._noise.set_state(local["noise"])

    def _draw(self) -> Mapping[str, torch.Tensor]:
        """Makes the batch of this update; returns nothing that is summed."""
        batch = self._data.sample(self._config.batch_size // self._ranks, self._draws)
        self._batch = (batch, *self._levels(batch))
        return {}

    def _losses(self) -> torch.Tensor:
        """[K], of this rank's samples."""
        assert self._batch is not None, "it was drawn"
        batch, sigma, noise = self._batch
        return batch.task_losses(self._sample_losses(batch, sigma, noise))

    def _loss_of(self, row: int) -> torch.Tensor:
        assert self._batch is not None, "it was drawn"
        batch, sigma, noise = self._batch
        alone = _only(batch, row)
        return alone.task_losses(self._sample_losses(alone, sigma[row : row + 1], noise[row : row + 1]))[0]

    def _gradients(
        self, reducer: Reducer
    ) -> tuple[Mapping[str, torch.Tensor], torch.Tensor, dict[str, float]]:
        """Parameter name -> gradient of the sum of the tasks' losses, or what the configured method makes of
        them; the losses [K]; and the metrics of surgery. Of all ranks' samples.
        """
        portion, surgery = self._data.portion, self._surgery
        if surgery is not None:
            # Otherwise one joint backward: the faster of two ways would become part of the numbers.
            loss_of = self._loss_of if surgery.config.perturbation > 0 else None
            combined = surgery.step(self._losses, loss_of, reducer=reducer, portion=portion)
            surgery_metrics = {f"gradients/{name}": value for name, value in combined.metrics.items()}
            return combined.gradients, combined.losses, surgery_metrics
        named = dict(self._network.named_parameters())

        def make() -> dict[str, torch.Tensor]:
            losses = self._losses()
            counted = losses
            if portion is not None:
                require_finite(losses, "the diffusion agent", self.updates + 1)
                counted = losses * portion.to(losses)
            self._network.zero_grad(set_to_none=True)
            counted.sum().backward()
            found = {name: value.grad for name, value in named.items() if value.grad is not None}
            return found | {"/losses": counted.detach()}

        like: dict[str, tuple[Sequence[int], torch.dtype]]
        like = {name: (value.shape, value.dtype) for name, value in named.items()}
        like["/losses"] = ((self._layout.task_count,), self._network.mean.dtype)
        found = dict(reducer.sums(make, like))
        return found, found.pop("/losses"), {}

    def _levels(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise levels [K, B] and noise [K, B, H, A] of one update; regression draws neither."""
        chunk = batch.fields["chunk"]
        if self._config.objective == "regression":
            return chunk.new_empty(chunk.shape[:2]), chunk.new_empty(chunk.shape)
        sigma = draw_sigma(self._config.noise, chunk.shape[0] * chunk.shape[1], self._noise)
        noise = torch.randn(chunk.flatten(0, 1).shape, generator=self._noise)
        return sigma.view(chunk.shape[:2]), noise.view(chunk.shape)

    def _sample_losses(self, batch: Batch, sigma: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """[K, B]"""
        states = batch.buckets["state"].values.flatten(0, 1)
        chunk, real = batch.fields["chunk"].flatten(0, 1), batch.fields["real"].flatten(0, 1)
        task = batch.task_index.repeat_interleave(batch.weight.shape[1])
        if self._config.objective == "regression":
            losses = regression_loss(self._network, states, task, chunk, real)
        else:
            losses = denoising_loss(
                self._network,
                self._config.noise,
                states,
                task,
                chunk,
                real,
                sigma.flatten(),
                noise.flatten(0, 1),
            )
        return losses.unflatten(0, batch.weight.shape)

    def _learning_rate(self) -> float:
        """Linear warm-up, then a cosine to zero; constant where no budget is known."""
        config, step = self._config, self.updates
        if step < config.warmup:
            return config.learning_rate * (step + 1) / config.warmup
        if config.decay_updates == 0:
            return config.learning_rate
        span = max(1, config.decay_updates - config.warmup)
        progress = min(1.0, (step - config.warmup) / span)
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


def _successful(data: Trajectories) -> Trajectories:
    """The episodes in which the success signal was ever on; failures are for learners that use rewards."""
    counts = np.add.reduceat(data.success.astype(np.int64), data.offsets[:-1])
    return data if counts.all() else data.select(np.flatnonzero(counts))


def _begin_as(network: ChunkNetwork, parent: ChunkNetwork) -> None:
    """Takes over weights and standardisation."""
    theirs, ours = parent.state_dict(), network.state_dict()
    for name, value in ours.items():
        other = tuple(theirs[name].shape) if name in theirs else "absent"
        if other != tuple(value.shape):
            raise ConfigError(
                f"init_from: the parent's network differs: {name} is {other} there; expected "
                f"{tuple(value.shape)}. Give both the same agent.network and tasks"
            )
    network.load_state_dict({name: theirs[name] for name in ours})
