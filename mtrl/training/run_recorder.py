"""A run's progress and records: how far it has come, what it logs, keeps and evaluates, when it ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mtrl.errors import ConfigError
from mtrl.reading import reading
from mtrl.rollout import EpisodeGroup, Fragment, LostStarts, PolicySnapshot
from mtrl.tasks import TaskSampler

from .agent import Agent
from .checkpoint import Checkpoints
from .config import Clock
from .episode_statistics import EpisodeStatistics
from .run_metrics import Means, evaluation_metrics
from .sources import Data, Source
from .task_shares import TaskShares
from .trackers import Tracker

if TYPE_CHECKING:
    import torch

    from mtrl.evaluation import EvaluationResult
    from mtrl.reducer import Reducer

Evaluation = tuple[int, "EvaluationResult"]
"""Step, and the result of the policy of that step."""

FORMAT = 2
"""Of checkpoints; those without a number are of the versions before agents had shared and local state."""


class Evaluator(Protocol):
    """Evaluates beside training."""

    def begin(self, step: int, snapshot: PolicySnapshot) -> None:
        """Begins with the policy of a step and returns at once."""

    def finished(self, wait: bool) -> list[Evaluation]:
        """Evaluations that have ended, in the order of their steps; with `wait` all that were begun."""


class RunRecorder:
    """Shared by every loop: of our agents (`learn`) and of the libraries (`run_baseline`).

    Without `checkpoints` nothing is kept. Of several ranks, the first evaluates and keeps what all share;
    each keeps its own state in checkpoints of its own, and `shared` are the first one's.
    """

    def __init__(
        self,
        clock: Clock,
        tracker: Tracker,
        checkpoints: Checkpoints | None,
        task_names: Sequence[str],
        *,
        skip_episodes_below: int = 0,
        sampler: TaskSampler | None = None,
        minutes: float = 0.0,
        stop: Callable[[], bool] = lambda: False,
        evaluate: Callable[[PolicySnapshot], EvaluationResult] | None = None,
        evaluator: Evaluator | None = None,
        on_progress: Callable[[RunRecorder, Mapping[str, float]], None] | None = None,
        shared: Checkpoints | None = None,
        counted: int = 0,
    ) -> None:
        """`sampler` sets each task's share, equal without one. `minutes` ends the run, 0 for never.
        `stop` is called after every record. `evaluator` evaluates elsewhere meanwhile what `evaluate` would
        here. `on_progress` receives the latest metrics after every record. `counted` are the steps of all
        ranks that processes before this one had reported, which may be more than their checkpoints know.
        """
        self.clock, self.tracker, self.checkpoints = clock, tracker, checkpoints
        self.steps = 0
        """Units of the clock so far, of all ranks together."""
        self.finished = False
        """Whether the loop ends here: the budget is spent, or a stop was requested."""
        self.incarnation = 0
        """Sessions of this run before this one."""
        self.lost_steps = 0
        """Environment steps that count and whose updates were lost with a learner."""
        self.lost_starts = LostStarts(task_names)
        """Episodes that were begun and ended with their process."""
        self._counted = counted
        self._shares = TaskShares(sampler, task_names)
        self.statistics = EpisodeStatistics(task_names, skip_episodes_below, self._shares.observe)
        self._window = Means()
        self._minutes, self._stop = minutes, stop
        self._evaluate, self._evaluator, self._on_progress = evaluate, evaluator, on_progress
        self._shared = shared if shared is not None else checkpoints
        self._recorded = 0
        self._evaluated: dict[str, float] = {}
        self._latest: Mapping[str, float] = {}
        self._began = self._marked_at = time.monotonic()
        self._mark, self._updates = (0, 0), 0

    @property
    def complete(self) -> bool:
        """Whether the budget is spent."""
        return self.steps >= self.clock.budget

    @property
    def steps_for_updates(self) -> int:
        """Steps that count towards updates: none during the warm-up."""
        return self.steps if self.steps >= self.clock.warmup else 0

    @property
    def interval(self) -> int:
        """Updates between two records: all that are due where steps are counted, but 1 before the first step,
        when updates are counted.
        """
        return sys.maxsize if self.clock.unit == "steps" and self.steps > 0 else 1

    def resume(self, agent: Agent, source: Source, reducer: Reducer) -> None:
        """Restores the newest checkpoint, or begins. Raises ConfigError for one of an older version."""
        self._began = self._marked_at = time.monotonic()
        saved, own = self._newest(reducer)
        restored = False
        if saved is None:
            self.tracker.load_state_dict({})
        else:
            assert self.checkpoints is not None, "a saved state comes from a checkpoint"
            with reading(self.checkpoints.directory, "the checkpoints of such a run", "begin it again"):
                agent.restore(saved["shared"], None if own is None else own["local"])
                self.load(saved if own is None else own)
                lanes = None if own is None else own["source"]
            restored = source.restore(lanes, agent, self.steps, self.incarnation)
        if not restored:
            self.statistics.forget_open()
        kept = max(self.steps, int(reducer.agree(source.counted, "sum")))
        # updates that were lost are made again
        reported = self._counted if self.clock.unit == "steps" else 0
        counted = max(kept, int(reducer.agree(reported, "max")))
        self.lost_steps += counted - kept
        if counted > self.steps:
            self.steps = self._recorded = counted
            source.publish(agent, self.steps)
        self._mark, self._updates = (self.steps, agent.updates), agent.updates
        self._shares.attach(source, agent)
        # lanes that are rebuilt are stepped to where they were
        reducer.meet()
        self.finished = self.complete

    def collect(self, agent: Agent, source: Source, reducer: Reducer) -> None:
        """Takes data, gives it to the agent and counts it; where nothing is online, grants an update.

        An error on one rank is raised on all.
        """
        import torch

        failure: Exception | None = None
        count = 0
        try:
            for data in source.take(agent, reducer):
                agent.ingest(data)
                count += self._observe(data)
        except Exception as error:  # noqa: BLE001 - raised below, on every rank
            failure = error

        def counted() -> Mapping[str, torch.Tensor]:
            if failure is not None:
                raise failure
            return {"steps": torch.tensor([count], dtype=torch.int64)}

        # a rank may wait long for its first fragment
        reducer.meet()
        taken = reducer.sums(counted, {"steps": ((1,), torch.int64)})
        self.statistics.merge(reducer)
        self.lost_starts.add(self.statistics.take_lost(), self.steps)
        self._shares.apply_shares()
        self.steps += int(taken["steps"]) if self.clock.unit == "steps" else 1

    def add(self, metrics: Mapping[str, float]) -> None:
        """The metrics of one update."""
        self._window.add(metrics)
        self._latest = metrics

    def evaluations(self, agent: Agent, reducer: Reducer) -> Iterator[tuple[int, EvaluationResult]]:
        """(step, result) of the evaluations that are finished: the one that is due, made at once by the
        first rank, or those of an evaluator elsewhere, all of them at the end. Figures are logged with the
        next record.
        """
        due = self.clock.crosses(self.clock.evaluate_every, self._recorded, self.steps)
        if not due and (self._evaluator is None or not self.clock.evaluate_every):
            return
        found: list[Evaluation] = []
        if reducer.rank == 0:
            found = self._evaluations(agent, due)
        for step, result in _on_all_ranks(found, reducer):
            self._evaluated |= evaluation_metrics(result)
            yield step, result

    def _evaluations(self, agent: Agent, due: bool) -> list[Evaluation]:
        if self._evaluator is not None:
            if due:
                self._evaluator.begin(self.steps, agent.snapshot("evaluate"))
            return self._evaluator.finished(self.complete)
        result = self.evaluate(agent.snapshot("evaluate"))
        return [] if result is None else [(self.steps, result)]

    def evaluate(self, policy: PolicySnapshot) -> EvaluationResult | None:
        """The result of a policy as it is now; None where nothing evaluates."""
        return None if self._evaluate is None else self._evaluate(policy)

    def record(self, agent: Agent, source: Source, reducer: Reducer) -> None:
        """Logs and saves by the clock, and decides whether the run continues."""
        before, self._recorded = self._recorded, self.steps
        # before the first step, updates are what is counted
        pretrained = agent.updates if self.steps == 0 and agent.updates > self._updates else 0
        self._updates = agent.updates
        logs = self.clock.crosses(self.clock.log_every, before, self.steps)
        if logs or self._evaluated or (pretrained and pretrained % self.clock.log_every == 0):
            counted: dict[str, float] = {}
            if self.clock.unit == "steps":
                counted = {
                    **self.statistics.metrics(),
                    **self._shares.metrics(),
                    **source.metrics(),
                    **({"lost_steps": self.lost_steps} if self.lost_steps else {}),
                    **({"lost_starts": self.lost_starts.count} if self.lost_starts.count else {}),
                    "updates": agent.updates,
                }
            self.log(self.steps, {**self._window.take(), **self._evaluated, **counted}, agent.updates)
            self._evaluated = {}
            if reducer.rank == 0 and self._shared is not None:
                self.lost_starts.write(self._shared.directory.parent)
        self.finished = bool(reducer.agree(float(self.complete or self.stopping), "any"))
        often = min(self.clock.checkpoint_every, 10 * self.clock.log_every)
        saves = self.clock.crosses(self.clock.checkpoint_every, before, self.steps)
        if self.finished or saves or (pretrained and pretrained % often == 0):
            self._save(agent, source, reducer)
        self.show(self._latest)

    def show(self, metrics: Mapping[str, float]) -> None:
        """Passes on how far the run has come."""
        if self._on_progress is not None:
            self._on_progress(self, metrics)

    @property
    def stopping(self) -> bool:
        """Whether a stop was requested, or the minutes are over."""
        overtime = self._minutes > 0 and time.monotonic() - self._began > 60 * self._minutes
        return overtime or self._stop()

    def log(self, step: int, metrics: Mapping[str, float], updates: int | None = None) -> None:
        """Writes metrics and rates; `updates` so far, None for a baseline, which does not count them."""
        self.tracker.log(step, metrics)
        now = time.monotonic()
        seconds = max(now - self._marked_at, 1e-9)
        rates: dict[str, float] = {}
        if self.clock.unit == "steps":
            rates["steps_per_second"] = (step - self._mark[0]) / seconds
        if updates is not None:
            rates["updates_per_second"] = (updates - self._mark[1]) / seconds
        self.tracker.timing(step, rates)
        self._mark, self._marked_at = (step, updates or 0), now

    def state(self) -> dict[str, Any]:
        """The run's own part of a checkpoint."""
        return {
            "format": FORMAT,
            "steps": self.steps,
            "incarnation": self.incarnation,
            "lost_steps": self.lost_steps,
            "lost_starts": self.lost_starts.state_dict(),
            "tracker": self.tracker.state_dict(),
            "statistics": self.statistics.state_dict(),
            "window": self._window.state_dict(),
            "shares": self._shares.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restores `state`."""
        self.steps = self._recorded = int(state["steps"])
        self._mark, self._marked_at = (self.steps, 0), time.monotonic()
        self.incarnation = int(state["incarnation"]) + 1
        self.lost_steps = int(state.get("lost_steps", 0))
        self.lost_starts.load_state_dict(state.get("lost_starts", {}))
        self.tracker.load_state_dict(state["tracker"])
        self.statistics.load_state_dict(state["statistics"])
        self._window.load_state_dict(state["window"])
        self._shares.load_state_dict(state["shares"])

    def _observe(self, data: Data) -> int:
        """Counts episodes and steps of a piece of data; demonstrations are neither."""
        if isinstance(data, Fragment):
            self.statistics.add(data)
            return data.steps
        if isinstance(data, EpisodeGroup):
            for summary in data.summaries:
                self.statistics.add_summary(summary)
            return sum(summary.length for summary in data.summaries)
        return 0

    def _newest(self, reducer: Reducer) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
        """The newest checkpoint: what all ranks share, and this rank's own state; the latter is None on all
        where one lacks it, or where there were other ranks.
        """
        if self._shared is None or self.checkpoints is None:
            return None, None
        step = reducer.broadcast(max(self._shared.steps(), default=None))
        if step is None:
            return None, None
        newest, own = self._shared.latest(), None
        if newest is None or newest[0] != step:
            raise ConfigError(
                f"rank {reducer.rank} does not see the checkpoint of step {step} in "
                f"{self._shared.directory}, which the first rank does; put the run on a file system that all "
                "ranks share"
            )
        saved = require_format(newest[1])
        if saved["ranks"] == reducer.size and step in self.checkpoints.steps():
            own = saved if self.checkpoints is self._shared else require_format(self.checkpoints.load(step))
        # reading a large replay takes as long as it takes
        reducer.meet()
        return saved, own if reducer.agree(float(own is not None), "min") else None

    def _save(self, agent: Agent, source: Source, reducer: Reducer) -> None:
        if self.checkpoints is None:
            return
        state = {
            **self.state(),
            "ranks": reducer.size,
            "shared": agent.shared_state() if reducer.rank == 0 else None,
            "local": agent.local_state(),
            "source": source.state(),
        }
        self.checkpoints.save(self.steps, state)
        # the next call that waits for all must not wait for a slow disk
        reducer.meet()


def require_format(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state of a checkpoint; raises ConfigError for one that another version wrote."""
    found = state.get("format", 1)
    if found != FORMAT:
        raise ConfigError(
            f"this checkpoint has format {found}, and this version of mtrl continues from format {FORMAT}; "
            f"{'0.1.0 before December 2026' if found == 1 else 'a later version'} wrote it. Finish the run "
            "with that version, or begin it again with --overwrite; policies that it finished can be "
            "evaluated, exported and reported as they are"
        )
    return state


def _on_all_ranks(found: list[Evaluation], reducer: Reducer) -> list[Evaluation]:
    """The first rank's evaluations, on every rank."""
    if reducer.size == 1:
        return found
    from mtrl.evaluation import result_from_record, result_record

    reducer.meet()
    records = reducer.broadcast([[step, result_record(result)] for step, result in found])
    return [(int(step), result_from_record(record)) for step, record in records]
