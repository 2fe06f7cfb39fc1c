"""Records, checkpoints, evaluations and the budget of a run for a library's own loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from mtrl.reading import reading
from mtrl.rollout import EpisodeSummary, PolicySnapshot

from .agent import State, Use
from .run_metrics import evaluation_metrics
from .run_recorder import RunRecorder, require_format


class Baseline(Protocol):
    """A learner that owns its loop (Stable-Baselines3, RLlib).

    It shares tasks, starts, evaluation, tracking, distillation and export; it stores tensors and JSON, and
    promises no bit-equal resume. Building one starts no simulator and no worker: `run` does.
    """

    @property
    def steps(self) -> int:
        """Environment steps taken so far."""

    def run(self, run: BaselineRun) -> bool:
        """Trains until `run.budget` steps are taken; False when stopped before."""

    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        """The current policy as data."""

    def state(self) -> State:
        """Weights, optimisers and counts; experience is not kept."""

    def restore(self, state: State) -> None:
        """Restores `state`; the run continues with fresh experience."""


class BaselineRun:
    """Receiver of a baseline's progress, which records, saves and evaluates by the run's clock."""

    def __init__(self, baseline: Baseline, run: RunRecorder) -> None:
        """Records in `run`."""
        self._baseline, self._run = baseline, run
        self._kept = baseline.steps

    @property
    def budget(self) -> int:
        """Environment steps in all, all tasks together."""
        return self._run.clock.budget

    @property
    def log_every(self) -> int:
        """Environment steps between two calls of `log`."""
        return self._run.clock.log_every

    def add(self, summary: EpisodeSummary) -> None:
        """Takes every finished episode; `SharedEnvironment` puts them into `info`."""
        self._run.statistics.add_summary(summary)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes environment steps so far, and metrics named in the factory's `metrics`; logs them with what
        episodes returned.
        """
        self._run.statistics.merge()
        self._run.log(step, {**metrics, **self._run.statistics.metrics()})

    def advance(self, step: int) -> None:
        """Takes environment steps so far, for progress, checkpoints and evaluations: called often, where
        `state` and `snapshot` may be called, so never in the middle of an update.
        """
        run, before = self._run, self._run.steps
        run.steps = step
        run.statistics.merge()
        run.show({})
        crosses = run.clock.crosses
        # a library may go beyond the budget: the end comes once
        if before < self.budget and crosses(run.clock.evaluate_every, before, step):
            result = run.evaluate(self._baseline.snapshot("evaluate"))
            if result is not None:
                run.tracker.log(step, evaluation_metrics(result))
        if step < self.budget and crosses(run.clock.checkpoint_every, before, step):
            self.save()

    def stop(self) -> bool:
        """Called at least every second; once true, the baseline's `run` returns soon."""
        return self._run.stopping

    def save(self) -> None:
        """Writes a checkpoint where something is new."""
        run = self._run
        run.steps = self._kept = self._baseline.steps
        if run.checkpoints is not None:
            run.checkpoints.save(run.steps, {**run.state(), "shared": self._baseline.state()})

    @property
    def unsaved(self) -> bool:
        """Whether steps were taken since the last checkpoint."""
        return self._baseline.steps > self._kept


def run_baseline(baseline: Baseline, run: RunRecorder) -> bool:
    """Lets a baseline train until the budget is spent; True when it is, False when stopped before.

    Resumes from the newest checkpoint with fresh experience: what is logged from then on is not that of an
    uninterrupted run. The warm-up of the clock is not used: a baseline has settings of its own for it.
    """
    saved = None if run.checkpoints is None else run.checkpoints.latest()
    if saved is None:
        run.tracker.load_state_dict({})
    else:
        state = require_format(saved[1])
        assert run.checkpoints is not None, "a saved state comes from a checkpoint"
        with reading(run.checkpoints.directory, "the checkpoints of such a run", "begin it again"):
            baseline.restore(state["shared"])
            run.load(state)
    if baseline.steps >= run.clock.budget:
        return True
    recorded = BaselineRun(baseline, run)
    finished = baseline.run(recorded)
    if recorded.unsaved or finished:
        recorded.save()
    return finished
