"""The agent: rounds of groups, and what is learned from them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mtrl import registry
from mtrl.errors import ConfigError, MtrlWarning, UnsupportedError
from mtrl.reducer import Reducer
from mtrl.rollout import EpisodeGroup, Fragment, GroupRequest, PolicySnapshot
from mtrl.spaces import RunningMoments
from mtrl.tasks import TaskSet
from mtrl.training import Datasets, State, Use

from .cloning import Cloner
from .collection import RoundCollection
from .config import GRPOConfig
from .learning import GroupLearner, named_facts
from .policy import GroupPolicy, snapshot_of
from .returns import counts_success
from .student_actor import Actor, actor_for
from .table import RoundTable, gathered_moments
from .weights import TaskWeights

if TYPE_CHECKING:
    from mtrl.evaluation import EvaluationResult

START_STRIDE = 1_000_003
"""Training starts between those of one seed and of the next, as of the lanes."""


class GRPOAgent:
    """Group relative policy optimisation (Shao et al. 2024) of one policy for all tasks, without a critic.

    A round requests groups of episodes from equal starts; an update is every optimiser step on them.
    """

    def __init__(
        self,
        config: GRPOConfig,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        parent: nn.Module | None = None,
        reference: nn.Module | None = None,
    ) -> None:
        """Begins as `parent`; `reference` is what the divergence is measured from. Raises UnsupportedError
        for a suite without reproducible starts, ConfigError for returns that cannot be compared.
        """
        require_groups(config, tasks)
        self.updates = 0
        count = len(tasks)
        self._config, self._tasks, self._seed = config, tasks, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._actor = actor_for(tasks.layout, config.network, parent)
        base: Actor | None = None
        if reference is not None:
            base = actor_for(tasks.layout, config.network, reference).requires_grad_(False).eval()
        self._cloner: Cloner | None = None
        if config.cloning.updates:
            self._cloner = Cloner(config.cloning, self._actor, tasks, seed, rank=rank, ranks=ranks)
        self._learner = GroupLearner(config, self._actor, count, seed, base)
        self._collection = RoundCollection(config, tasks, seed, rank=rank, first_start=START_STRIDE * seed)
        self._weights = TaskWeights(config.weights, count, config.epochs * config.minibatches)
        self._follows_states = parent is None and self._cloner is None and config.network.normalise_until > 0
        self._moments = RunningMoments(count, tasks.layout.state_size)
        self._earlier: list[dict[str, torch.Tensor]] = []
        self._rounds = 0
        self._idle = np.zeros(count, dtype=np.int64)
        """[K], rounds in a row that collected groups of the task and found no gradient in any."""
        self._draws = np.random.default_rng([seed, 5, rank])

    def policy(self) -> GroupPolicy:
        """Acts with the current weights."""
        return GroupPolicy(self._actor, self.updates)

    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        """The actor as named arrays; what collects draws correlated noise, and earlier policies' actions."""
        if use != "collect":
            return snapshot_of("grpo", self._actor, self.updates)
        return snapshot_of(
            "grpo",
            self._actor,
            self.updates,
            correlation=self._config.network.correlation,
            earlier=self._earlier,
            share=self._config.pool.share,
        )

    def request(self, reducer: Reducer) -> Sequence[GroupRequest]:
        """The groups that the round lacks."""
        return self._collection.request(self._shares)

    def ingest(self, data: Fragment | EpisodeGroup | Datasets) -> None:
        """Takes a group of this rank's slice of the round, or demonstrations."""
        if isinstance(data, Datasets):
            if self._cloner is not None:
                self._cloner.ingest(data)
        elif isinstance(data, EpisodeGroup):
            self._collection.add(data)
        else:
            raise ConfigError("GRPO learns from groups of episodes, and from demonstrations (Datasets)")

    def due(self, steps: int, reducer: Reducer) -> int:
        """Updates of cloning that are left, then one of every complete round."""
        left = 0 if self._cloner is None else self._cloner.due(reducer)
        return left or int(self._collection.advance(reducer))

    def update(self, reducer: Reducer) -> Mapping[str, float]:
        """One step of cloning, or all steps on a round.

        Raises DivergenceError on every rank for a gradient that is not finite.
        """
        if self._cloner is not None and self._cloner.done < self._config.cloning.updates:
            metrics = self._cloner.update(reducer)
            self.updates += 1
            return metrics
        if not self._collection.ready:
            raise ConfigError("GRPO has no complete round; call request, ingest and due first")
        table, facts = self._collection.close()
        self._weights.observe(facts["score"])
        self._note_idle(facts)
        self._keep_earlier()
        weighted = self._config.sampler.kind == "weights"
        found = self._learner.round(
            table,
            self._draws,
            reducer,
            self._floors,
            (lambda change: self._weights.step(self._weights.improvements(change))) if weighted else None,
        )
        if self._follows_states:
            self._follow_states(table, reducer)
        self.updates += 1
        self._rounds += 1
        with np.errstate(invalid="ignore"):
            useful = facts["useful"] / np.where(facts["collected"] > 0, facts["collected"], np.nan)
        widths = self._tasks.layout.continuous_mask
        std = self._actor.log_std.detach().exp().numpy()
        own = [
            float(row[mask].mean()) if mask.any() else np.nan for row, mask in zip(std, widths, strict=True)
        ]
        named = {
            **found,
            "weight": self._shares,
            "score": facts["score"],
            "useful_groups": useful,
            "kept_groups": facts["kept"],
            "advantage_mean": facts["advantage_mean"],
            "advantage_std": facts["advantage_std"],
            "std": np.array(own),
        }
        steps = {"optimiser_steps": float(self._learner.steps), "decisions": self._decisions(table, reducer)}
        return named_facts(named, self._tasks.names) | steps

    def on_evaluation(self, step: int, result: EvaluationResult) -> None:
        """Ignored."""

    def task_cosines(self) -> Mapping[str, npt.NDArray[np.float64]]:
        """Cosines between the tasks' gradients since the last call, as of the one part, "actor"."""
        cosines = self._learner.task_cosines()
        return {} if cosines is None else {"actor": cosines}

    def shared_state(self) -> State:
        """Weights, optimiser, task weights, statistics."""
        return {
            "actor": dict(self._actor.state_dict()),
            "learner": self._learner.shared_state(),
            "cloner": None if self._cloner is None else self._cloner.shared_state(),
            "collection": self._collection.shared_state(),
            "weights": self._weights.state_dict(),
            "moments": self._moments.state_dict(),
            "earlier": [dict(state) for state in self._earlier],
            "idle": self._idle.copy(),
            "updates": self.updates,
            "rounds": self._rounds,
        }

    def local_state(self) -> State:
        """Own draws, and groups of a round under way."""
        return {
            "draws": self._draws.bit_generator.state,
            "collection": self._collection.local_state(),
            "cloner": None if self._cloner is None else self._cloner.local_state(),
        }

    def restore(self, shared: State, local: State | None) -> None:
        """Restores both; with another number of ranks a round under way begins again."""
        self._actor.load_state_dict(shared["actor"])
        self._learner.restore(shared["learner"])
        if self._cloner is not None:
            self._cloner.restore(shared["cloner"], None if local is None else local["cloner"])
        self._collection.restore(shared["collection"], None if local is None else local["collection"])
        self._weights.load_state_dict(shared["weights"])
        self._moments.load_state_dict(shared["moments"])
        self._earlier = [dict(state) for state in shared["earlier"]]
        self._idle[:] = shared["idle"]
        self.updates, self._rounds = int(shared["updates"]), int(shared["rounds"])
        if local is not None:
            self._draws.bit_generator.state = local["draws"]

    @property
    def _shares(self) -> npt.NDArray[np.float64]:
        """[K], the task weights, equal without any."""
        if self._config.sampler.kind == "weights":
            return self._weights.weights
        return np.full(len(self._tasks), 1.0 / len(self._tasks))

    @property
    def _floors(self) -> npt.NDArray[np.float64]:
        """[K], of the deviations: (1 - J_k) std_floor."""
        return self._config.network.std_floor * (1.0 - np.nan_to_num(self._weights.success))

    def _decisions(self, table: RoundTable, reducer: Reducer) -> float:
        return reducer.agree(float(table.count), "sum")

    def _keep_earlier(self) -> None:
        """Keeps the policy that collected this round, every so many rounds."""
        pool = self._config.pool
        if pool.size and self._rounds % pool.every == 0:
            state = {name: value.detach().clone() for name, value in self._actor.state_dict().items()}
            self._earlier = [*self._earlier, state][-pool.size :]

    def _follow_states(self, table: RoundTable, reducer: Reducer) -> None:
        """States are standardised by all that was seen, until there is enough of it. It changes between
        rounds alone: a round's log-probabilities are of one policy.
        """
        until, layout = self._config.network.normalise_until, self._tasks.layout
        found = gathered_moments(table, self._moments, until, reducer)
        if found:
            self._actor.set_moments(self._moments.freeze(layout.state_mask))

    def _note_idle(self, facts: Mapping[str, npt.NDArray[np.float64]]) -> None:
        """Warns of tasks whose groups have had no gradient for a while."""
        for k in np.flatnonzero(facts["collected"] > 0).tolist():
            self._idle[k] = 0 if facts["useful"][k] else self._idle[k] + 1
            if self._idle[k] == self._config.idle_rounds:
                score = facts["score"][k]
                what = (
                    "its episodes all succeed; leave it out, or make it harder"
                    if score > 0.99
                    else "begin from a policy that succeeds at times (init_from, or agent.cloning.updates "
                    "with more demonstrations), explore more (agent.network.std, correlation), take larger "
                    "groups, or learn from rewards (agent.returns.kind=dense)"
                )
                warnings.warn(
                    f"{self._tasks[k].name}: no group of the last {self._config.idle_rounds} rounds has a "
                    f"gradient, since the episodes of each are worth the same (score {score:.2f}): {what}",
                    MtrlWarning,
                    stacklevel=2,
                )


def require_groups(config: GRPOConfig, tasks: TaskSet) -> None:
    """Raises UnsupportedError for a suite without starts, ConfigError for returns that cannot be compared."""
    for task in tasks:
        suite = registry.suite(task.suite)
        if not suite.supports_starts:
            raise UnsupportedError(
                f"task {task.name}: suite {suite.name!r} cannot reset to a given start, and the episodes of "
                "a group begin from one; use another suite, or an agent that learns from a stream "
                "(agent=ppo, agent=sac)"
            )
    raw = [task.name for task in tasks if not task.score.is_normalised]
    if raw and config.sampler.kind == "weights":
        raise ConfigError(
            f"agent.sampler.kind=weights compares success rates and scores, and the returns of "
            f"{', '.join(raw[:3])} have no range; give the task a score range, or set kind=uniform or frames"
        )
    dense = [task.name for task in tasks if not counts_success(task, config.returns)]
    settings = config.advantage
    if dense and len(tasks) > 1 and settings.scale == "none" and not settings.normalise_tasks:
        raise ConfigError(
            f"agent.advantage.scale=none adds up returns of {', '.join(dense[:3])} and of "
            f"{len(tasks) - 1} other tasks as they are, though their scales differ; set "
            "agent.advantage.scale=group or task, or agent.advantage.normalise_tasks=true"
        )
