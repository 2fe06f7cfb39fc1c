"""The search itself: Ray Tune with Optuna's draws and ASHA's early stops over the trials of a ledger."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update(
    RAY_AIR_NEW_OUTPUT="0",  # the table is ours
    TUNE_DISABLE_SIGINT_HANDLER="1",  # Ctrl-C is the caller's
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",  # the runs write their own metrics
    TUNE_DISABLE_STRICT_METRIC_CHECKING="1",  # a trial reports before its first value
)

import optuna
from ray import tune
from ray.tune import Callback, RunConfig, Stopper, TuneConfig, Tuner
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from .ledger import Ledger
from .space import Dimension
from .trial import TrialRun

SCRATCH = ".ray"
"""Folder of what Tune writes for itself, in the search's and gone with it."""


@dataclass(frozen=True)
class SearchSettings:
    """How a search goes about it."""

    space: Mapping[str, Dimension]
    """Setting -> its values."""
    metric: str
    mode: str
    """"max" or "min"."""
    trials: int
    concurrent: int
    """Trials at a time; 0 for as many as the cluster has room for."""
    processors: int
    """Of each trial."""
    algorithm: str
    """"optuna" (tree-structured Parzen estimators) or "random"."""
    seed: int
    early_stopping: bool
    grace: int
    """Evaluations that every trial gets before ASHA may stop it."""
    reduction: int
    """Of as many trials at a rung, ASHA lets one go on."""
    save_seconds: int
    """Seconds that a stopped trial has for saving."""


def search(
    settings: SearchSettings,
    ledger: Ledger,
    command: Callable[[Sequence[str]], list[str]],
    *,
    stopping: Callable[[], bool],
    changed: Callable[[int], None],
) -> None:
    """Runs the trials; Ray must be joined. What a ledger holds already is replayed, not run again.

    `command` makes the command line of a trial from its words. `stopping` is asked once a second and ends
    the search with every run saved. `changed` is called with the number of a trial after each change of it.
    """
    scratch = ledger.folder / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    scheduler: Any = FIFOScheduler()
    if settings.early_stopping:
        scheduler = ASHAScheduler(
            time_attr="evaluations",
            max_t=1_000_000,
            grace_period=settings.grace,
            reduction_factor=settings.reduction,
        )
    tuner = Tuner(
        tune.with_resources(TrialRun, {"cpu": settings.processors}),
        tune_config=TuneConfig(
            metric=settings.metric,
            mode=settings.mode,
            search_alg=_Trials(settings, ledger, command),
            scheduler=scheduler,
            num_samples=settings.trials,
            max_concurrent_trials=settings.concurrent or None,
        ),
        run_config=RunConfig(
            name="tune",
            storage_path=str(scratch.absolute()),
            callbacks=[_Notes(settings.metric, ledger, stopping, changed)],
            stop=_Stop(stopping),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Unsaved:
    """Leaves its own out of what Tune writes for itself: a search goes on from its ledger alone."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Trials(_Unsaved, Searcher):
    """Optuna's suggestions as numbered trials, the recorded ones first."""

    def __init__(
        self, settings: SearchSettings, ledger: Ledger, command: Callable[[Sequence[str]], list[str]]
    ) -> None:
        super().__init__(metric=settings.metric, mode=settings.mode)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._settings, self._ledger, self._command = settings, ledger, command
        sampler = (
            optuna.samplers.RandomSampler if settings.algorithm == "random" else optuna.samplers.TPESampler
        )
        # the searcher splits names at slashes, and keys may hold some
        self._keys = {f"p{index}": key for index, key in enumerate(settings.space)}
        names = {key: name for name, key in self._keys.items()}
        self._inner = OptunaSearch(
            {name: _domain(settings.space[key]) for name, key in self._keys.items()},
            metric=settings.metric,
            mode=settings.mode,
            points_to_evaluate=[
                {names[key]: value for key, value in trial.drawn.items()} for trial in ledger.trials
            ],
            sampler=sampler(seed=settings.seed),
        )
        self._next = 0

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        drawn: Any = self._inner.suggest(trial_id)
        if not isinstance(drawn, dict):
            return None
        number, self._next = self._next, self._next + 1
        if number == len(self._ledger.trials):
            found = {key: drawn[name] for name, key in self._keys.items()}
            words = {key: self._settings.space[key].word(value) for key, value in found.items()}
            self._ledger.begin(words, found)
        record = self._ledger.trials[number]
        run = self._ledger.run(number).absolute()
        return {
            "number": number,
            "state": record.state,
            "metric": self._settings.metric,
            "command": self._command([*record.words, f"name={run.parent.name}/{record.name}"]),
            "run": str(run),
            "log": f"{run}.log",
            "folder": str(Path.cwd()),
            "grace_seconds": self._settings.save_seconds,
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if self.metric in result:
            self._inner.on_trial_result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        measured = bool(result) and self.metric in (result or {})
        self._inner.on_trial_complete(trial_id, result if measured else None, error or not measured)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what a search goes on from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


def _domain(dimension: Dimension) -> Any:  # noqa: ANN401 - a domain of Ray Tune
    if dimension.kind == "choice":
        return tune.choice(list(dimension.values))
    if dimension.kind == "integer":
        return tune.randint(int(dimension.low), int(dimension.high) + 1)
    draw = tune.loguniform if dimension.kind == "log" else tune.uniform
    return draw(dimension.low, dimension.high)


class _Notes(_Unsaved, Callback):
    """Keeps the ledger."""

    def __init__(
        self, metric: str, ledger: Ledger, stopping: Callable[[], bool], changed: Callable[[int], None]
    ) -> None:
        self._metric, self._ledger, self._stopping, self._changed = metric, ledger, stopping, changed

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:  # noqa: ANN401
        if self._metric in result and "at" in result:
            self._note(trial, step=int(result["at"]), value=float(result[self._metric]))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:  # noqa: ANN401
        whole = bool(trial.last_result.get("done")) and self._metric not in trial.last_result
        if self._ledger.trials[trial.config["number"]].state != "running":
            return
        if whole:
            self._note(trial, state="finished")
        elif not self._stopping():
            self._note(trial, state="stopped")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:  # noqa: ANN401
        self._note(trial, state="failed")

    def _note(self, trial: Any, **changes: Any) -> None:  # noqa: ANN401
        number = trial.config["number"]
        self._ledger.note(number, **changes)
        self._changed(number)


class _Stop(_Unsaved, Stopper):
    """Ends everything once the user asks."""

    def __init__(self, stopping: Callable[[], bool]) -> None:
        self._stopping = stopping

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._stopping()

    def stop_all(self) -> bool:
        return self._stopping()
