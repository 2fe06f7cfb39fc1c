"""The agent: rounds of a stream or of whole episodes, and what is learned from them."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mtrl.errors import DivergenceError
from mtrl.reducer import Like, Reducer, Sums
from mtrl.rollout import Acting, EpisodeGroup, Fragment, GroupRequest, PolicySnapshot
from mtrl.spaces import RunningMoments
from mtrl.tasks import Split, TaskSet, start_id
from mtrl.training import Datasets, State, Use

from ..grpo.agent import START_STRIDE
from ..grpo.cloning import Cloner
from ..grpo.learning import named_facts, path_log_probability
from ..grpo.losses import clipped_objective, weighted_sums
from ..grpo.networks import StepBatch
from ..grpo.policy import GroupPolicy, snapshot_of
from ..grpo.returns import counts_success
from ..grpo.student_actor import StudentActor, actor_for
from ..grpo.surgery import MinibatchSurgery, summed_gradients
from ..grpo.table import RoundTable, gathered_moments
from .config import PPOConfig
from .critic import TaskCritic
from .rollout import Columns, steps_of

if TYPE_CHECKING:
    from mtrl.evaluation import EvaluationResult

HEAD_SCALE = 0.01
"""By which the actor's output layer is scaled at first (Andrychowicz et al. 2021, arXiv 2006.05990)."""
FACTS = ("objective", "entropy", "clipped", "value_loss", "count")
"""Sums over a task's decisions in a minibatch."""


class PPOAgent:
    """Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) of one policy for all tasks, with
    a critic for every task whose outputs PopArt scales. An update is every optimiser step on a round.
    """

    def __init__(
        self,
        config: PPOConfig,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        parent: nn.Module | None = None,
    ) -> None:
        """Begins as `parent`, with new critics."""
        self.updates = 0
        self._config, self._tasks, self._seed = config, tasks, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._actor = actor_for(tasks.layout, config.network, parent)
            self._critic = TaskCritic(tasks.layout, config.network)
        self._cloner: Cloner | None = None
        if config.cloning.updates:
            self._cloner = Cloner(config.cloning, self._actor, tasks, seed, rank=rank, ranks=ranks)
        self._named = {
            **{f"actor.{name}": value for name, value in self._actor.named_parameters()},
            **{f"critic.{name}": value for name, value in self._critic.named_parameters()},
        }
        if parent is not None:
            self._see_as_actor()
        elif not config.cloning.updates:
            self._begin_undecided()
        self._surgery: dict[str, MinibatchSurgery] = {}
        """Of the networks whose gradients are combined, by name."""
        for part, network in (("actor", self._actor), ("critic", self._critic)):
            if config.gradients.covers(part) and not config.gradients.plain:
                self._surgery[part] = MinibatchSurgery(
                    network,
                    config.gradients,
                    len(tasks),
                    seed,
                    signed="the loss of PPO" if part == "actor" else "",
                )
        self._plain = {n: value for n, value in self._named.items() if n.split(".")[0] not in self._surgery}
        self._optimizer = torch.optim.Adam(self._named.values(), lr=config.learning_rate, eps=1e-5)
        self._follows_states = parent is None and self._cloner is None and config.network.normalise_until > 0
        self._moments = RunningMoments(len(tasks), tasks.layout.state_size)
        self._columns: list[Columns] = []
        self._rounds = self._started = 0
        self._requested = False
        self._draws = np.random.default_rng([seed, 5, rank])

    def policy(self) -> GroupPolicy:
        """Acts with the current weights."""
        return GroupPolicy(self._actor, self.updates, correlation=self._config.network.correlation)

    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        """The actor as named arrays."""
        correlation = self._config.network.correlation if use == "collect" else 0.0
        return snapshot_of("ppo", self._actor, self.updates, correlation=correlation)

    def request(self, reducer: Reducer) -> Sequence[GroupRequest]:
        """A round of groups, of the tasks in turn."""
        self._requested = True
        found = []
        for _ in range(self._config.episodes.groups):
            turn, k = divmod(self._started, len(self._tasks))
            self._started += 1
            success = counts_success(self._tasks[k], self._config.returns)
            found.append(
                GroupRequest(
                    task_index=k,
                    start=start_id(Split.TRAIN, START_STRIDE * self._seed + turn),
                    size=self._config.episodes.group_size,
                    acting=Acting(explore=True),
                    seed=self._seed,
                    success_tail=self._config.returns.tail if success else None,
                )
            )
        return found

    def ingest(self, data: Fragment | EpisodeGroup | Datasets) -> None:
        """Takes a fragment, a group, or demonstrations; ignores random play, which is not the policy's."""
        if isinstance(data, Datasets):
            if self._cloner is not None:
                self._cloner.ingest(data)
            return
        task, settings = self._tasks[data.task_index], self._config.returns
        if isinstance(data, EpisodeGroup):
            self._columns.append(Columns.of_group(data, task, self._tasks.layout, settings))
        elif "drawn" in data.extras:
            self._columns.append(Columns.of_fragment(data, task))

    def due(self, steps: int, reducer: Reducer) -> int:
        """Updates of cloning that are left, then one of every round that all ranks together have."""
        left = 0 if self._cloner is None else self._cloner.due(reducer)
        if left:
            return left
        held = reducer.agree(float(sum(part.steps for part in self._columns)), "sum")
        if self._config.episodes.groups:
            return int(self._requested and held > 0)
        return int(held >= self._config.rollout)

    def update(self, reducer: Reducer) -> Mapping[str, float]:
        """One step of cloning, or all steps on a round. Raises DivergenceError on every rank for a gradient
        that is not finite.
        """
        if self._cloner is not None and self._cloner.done < self._config.cloning.updates:
            metrics = self._cloner.update(reducer)
            self.updates += 1
            if self._cloner.done == self._config.cloning.updates:
                self._see_as_actor()
            return metrics
        table = self._table(reducer)
        left = 1.0
        if self._config.decay_rounds:
            left = max(0.0, 1.0 - self._rounds / self._config.decay_rounds)
        for group in self._optimizer.param_groups:
            group["lr"] = left * self._config.learning_rate
        totals = np.zeros((len(FACTS), len(self._tasks)))
        measured: dict[str, list[float]] = {"gradient_norm": []}
        for _ in range(self._config.epochs):
            for batch in table.minibatches(self._config.minibatches, self._draws):
                sums, found = self._step(table, batch, left, reducer)
                totals += np.stack([sums[name].numpy() for name in FACTS])
                for name, value in found.items():
                    measured.setdefault(name, []).append(value)
        if self._follows_states and gathered_moments(
            table, self._moments, self._config.network.normalise_until, reducer
        ):
            moments = self._moments.freeze(self._tasks.layout.state_mask)
            self._actor.set_moments(moments)
            self._critic.observer.set_moments(moments)
        self.updates += 1
        self._rounds += 1
        count = np.where(totals[-1] > 0, totals[-1], np.nan)
        facts: dict[str, npt.NDArray[np.float64] | float] = {
            name: total / count for name, total in zip(FACTS[:-1], totals, strict=False)
        }
        facts["value_mean"] = self._critic.mean.double().numpy()
        facts["value_deviation"] = self._critic.deviation.double().numpy()
        means = {name: float(np.mean(values)) for name, values in measured.items()}
        return named_facts({**facts, **means}, self._tasks.names)

    def on_evaluation(self, step: int, result: EvaluationResult) -> None:
        """Ignored."""

    def task_cosines(self) -> Mapping[str, npt.NDArray[np.float64]]:
        """Cosines between the tasks' gradients since the last call, of "actor" and "critic"."""
        found = {part: surgery.take_cosines() for part, surgery in self._surgery.items()}
        return {part: cosines for part, cosines in found.items() if cosines is not None}

    def shared_state(self) -> State:
        """Weights, optimiser, surgery, statistics."""
        return {
            "actor": dict(self._actor.state_dict()),
            "critic": dict(self._critic.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "surgery": {part: surgery.state_dict() for part, surgery in self._surgery.items()},
            "cloner": None if self._cloner is None else self._cloner.shared_state(),
            "moments": self._moments.state_dict(),
            "updates": self.updates,
            "rounds": self._rounds,
            "started": self._started,
        }

    def local_state(self) -> State:
        """Own draws, and what was collected since the last round."""
        return {
            "draws": self._draws.bit_generator.state,
            "columns": [part.state() for part in self._columns],
            "requested": self._requested,
            "cloner": None if self._cloner is None else self._cloner.local_state(),
        }

    def restore(self, shared: State, local: State | None) -> None:
        """Restores both; with another number of ranks a round under way begins again."""
        self._actor.load_state_dict(shared["actor"])
        self._critic.load_state_dict(shared["critic"])
        self._optimizer.load_state_dict(copy.deepcopy(shared["optimizer"]))
        for part, surgery in self._surgery.items():
            surgery.load_state_dict(shared["surgery"][part])
        if self._cloner is not None:
            self._cloner.restore(shared["cloner"], None if local is None else local["cloner"])
        self._moments.load_state_dict(shared["moments"])
        self.updates, self._rounds = int(shared["updates"]), int(shared["rounds"])
        self._started = int(shared["started"])
        self._columns, self._requested = [], False
        if local is not None:
            self._draws.bit_generator.state = local["draws"]
            self._columns = [Columns(**part) for part in local["columns"]]
            self._requested = bool(local["requested"])

    @torch.no_grad()
    def _begin_undecided(self) -> None:
        """Outputs near 0, whatever the state: nearly uniform choices, and means in the middle."""
        for name, value in self._named.items():
            if name.startswith("actor.network.outputs."):
                value.mul_(HEAD_SCALE)

    def _see_as_actor(self) -> None:
        """The critics take the actor's statistics of states, and its encoder if it has one."""
        if isinstance(self._actor, StudentActor):
            self._critic.observer.set_moments(self._actor.moments)
        else:
            self._critic.observer.load_state_dict(self._actor.observer.state_dict())

    def _table(self, reducer: Reducer) -> RoundTable:
        """The round with advantages, standardised by task, and targets; the critics are scaled to them."""
        count = len(self._tasks)
        found = [part.advantages(self._critic, self._config) for part in self._columns]

        def moments() -> Sums:
            rows = np.zeros((count, 5))
            for part, (advantage, value) in zip(self._columns, found, strict=True):
                target = advantage + value
                rows[part.task] += (
                    part.steps, advantage.sum(), (advantage**2).sum(), target.sum(), (target**2).sum()
                )  # fmt: skip
            return {"rows": torch.from_numpy(rows)}

        rows = reducer.sums(moments, {"rows": ((count, 5), torch.float64)})["rows"]
        there = rows[:, 0] > 0
        steps, first, square, mean, second = (rows / rows[:, :1].clamp_min(1.0)).unbind(1)
        del steps
        spread = (square - first**2).clamp_min(0.0).sqrt()
        deviation = (second - mean**2).clamp_min(0.0).sqrt()
        self._critic.rescale(mean.float(), deviation.float(), there, self._config.popart)
        by_task: dict[int, tuple[list[Columns], list[Any], list[Any]]] = {}
        for part, (advantage, value) in zip(self._columns, found, strict=True):
            k = part.task
            parts, advantages, values = by_task.setdefault(k, ([], [], []))
            parts.append(part)
            advantages.append(advantage)
            values.append(value)
        self._columns, self._requested = [], False
        tables = {}
        for k, (parts, advantages, values) in by_task.items():
            made = steps_of(parts, advantages, values)
            standard = (made.fields["advantage"] - float(first[k])) / (float(spread[k]) + 1e-8)
            tables[k] = type(made)(made.seen, {**made.fields, "advantage": standard})
        return RoundTable(tables)

    def _step(
        self, table: RoundTable, batch: StepBatch | None, left: float, reducer: Reducer
    ) -> tuple[Sums, dict[str, float]]:
        """One optimiser step; the sums of FACTS [K], and "gradient_norm" with what surgery measured."""
        like: Like = {name: (value.shape, value.dtype) for name, value in self._plain.items()}
        facts: Like = {name: ((len(self._tasks),), torch.float64) for name in FACTS}
        sums = dict(reducer.sums(lambda: self._sums(table, batch, left), {**like, **facts}))
        total, measured = float(sums["count"].sum()), {"gradient_norm": 0.0}
        if not total:
            return sums, measured
        for name, value in self._plain.items():
            value.grad = sums[name] / total
        for part, surgery in self._surgery.items():

            def losses(made: StepBatch, part: str = part) -> Tensor:
                if part == "actor":
                    return weighted_sums(self._actor_loss(table, made, left)[0], made.weight)
                return self._config.value * weighted_sums(self._error(made), made.weight)

            found, metrics = surgery.gradients(batch, losses, sums["count"], reducer)
            for name, gradient in found.items():
                self._named[f"{part}.{name}"].grad = gradient
            measured |= {f"gradients/{part}/{name}": value for name, value in metrics.items()}
        limit = self._config.gradient_clip or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(list(self._named.values()), limit))
        if not math.isfinite(norm):
            raise DivergenceError("PPO", self.updates + 1, f"gradient norm {norm}")
        self._optimizer.step()
        with torch.no_grad():
            settings = self._config.network
            low = math.log(max(settings.std_floor, 1e-3))
            self._actor.log_std.clamp_(low, math.log(settings.std_ceiling))
        return sums, measured | {"gradient_norm": norm}

    def _sums(self, table: RoundTable, batch: StepBatch | None, left: float) -> Sums:
        """This rank's gradient of the summed loss (equation 9) where no surgery makes it, and sums of FACTS
        [K].
        """
        if batch is None:
            empty = torch.zeros(len(self._tasks), dtype=torch.float64)
            zeros = {name: torch.zeros_like(value) for name, value in self._plain.items()}
            return zeros | dict.fromkeys(FACTS, empty)
        actor_loss, values = self._actor_loss(table, batch, left)
        values["value_loss"] = error = self._error(batch)
        # L = -E[L_clip - c_1 L_value + c_2 S]  (equation 9)
        total = weighted_sums(actor_loss + self._config.value * error, batch.weight).sum()
        sums = summed_gradients(total, self._plain) if self._plain else dict[str, Tensor]()
        for name, each in values.items():
            sums[name] = self._by_task(weighted_sums(each.detach(), batch.weight), batch.task)
        return sums

    def _actor_loss(
        self, table: RoundTable, batch: StepBatch, left: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """-L_clip - c_2 S by decision [K, B], and the FACTS of it."""
        config, fields = self._config, batch.fields
        log_probability, found = path_log_probability(self._actor, table, batch, config.network.correlation)
        clip = max(left * config.clip, 1e-6)
        before, advantage = fields["log_probability"], fields["advantage"]
        objective = clipped_objective(log_probability, before, advantage, clip, clip)
        entropy = found.entropy()
        outside = ((log_probability - before).exp() - 1.0).abs() > clip
        return -objective - config.entropy * entropy, {
            "objective": objective,
            "entropy": entropy,
            "clipped": outside.float(),
            "count": torch.ones_like(objective),
        }

    def _error(self, batch: StepBatch) -> Tensor:
        """(n - (G - mean) / deviation)^2 by decision, [K, B]."""
        predicted = self._critic(batch.buckets, batch.task, batch.samples)
        target = self._critic.normalised(batch.fields["value_target"], batch.task)
        return (predicted - target).square()

    def _by_task(self, rows: Tensor, task: Tensor) -> Tensor:
        """[rows] -> [K], 0 for absent tasks."""
        return torch.zeros(len(self._tasks), dtype=torch.float64).index_add(0, task, rows.double())
