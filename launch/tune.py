"""`mtrl tune`: a search over settings, each trial an ordinary run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mtrl.distributed.tuning import Dimension, Ledger, TrialRecord, dimension_of
from mtrl.errors import ConfigError, OutOfRangeError, ResourceError, UnsupportedError
from mtrl.evaluation.provenance import program
from mtrl.pipeline import Config, agent_of, log, require_resources, resume_command, run_name, task_set_of
from mtrl.rollout import RuntimeConfig
from mtrl.training import Interruptible, own_folder

from .arguments import add_json, add_overrides, emit
from .compose import compose
from .words import split_word

EXAMPLES = (
    "mtrl tune agent=sac tasks=point/obstacle online.steps=20000 agent.discount=choice(0.97,0.99)",
    "mtrl tune agent=sac tasks=mt10 'agent.learning_rate=log(1e-4,1e-2)' --trials 40 --address auto",
    "mtrl tune tasks=mt10 data=datasets 'training.updates=integer(1000,9000)' --metric loss --mode min",
)

EVALUATIONS = 10
"""Evaluations of a trial in training where `online.evaluate_every` is not set."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Settings with values to search among, and how."""
    add_overrides(
        parser,
        "settings; choice(a,b), uniform(low,high), log(low,high), integer(low,high) in place of a value",
        config_dir=True,
    )
    parser.add_argument(
        "--metric", default="", help="name of docs/metrics.md; without /TASK the mean over tasks"
    )
    parser.add_argument(
        "--mode", choices=("max", "min"), default="max", help="which end of it is better (max)"
    )
    parser.add_argument("--trials", type=int, default=20, help="trials in all (20)")
    parser.add_argument(
        "--concurrent", type=int, default=0, help="trials at a time (as many as there is room)"
    )
    parser.add_argument(
        "--search", choices=("optuna", "random"), default="optuna", help="how values are drawn"
    )
    parser.add_argument("--no-early-stopping", action="store_true", help="let every trial end, without ASHA")
    parser.add_argument("--grace", type=int, default=1, help="evaluations before ASHA may stop a trial (1)")
    parser.add_argument("--reduction", type=int, default=3, help="ASHA lets one of so many go on (3)")
    parser.add_argument(
        "--save-seconds", type=int, default=60, help="what a stopped trial has for saving (60)"
    )
    parser.add_argument("--address", default="", help="Ray cluster of the trials (a private one)")
    parser.add_argument(
        "--resume", choices=("auto", "never"), default="never", help="auto: go on with a search of that name"
    )
    add_json(parser, "the trials")


def run(arguments: argparse.Namespace) -> int:
    """Searches; 0 when it came to its end, 130 after Ctrl-C, with every run saved."""
    for flag in ("trials", "grace", "save_seconds"):
        if getattr(arguments, flag) < 1:
            raise OutOfRangeError(f"--{flag.replace('_', '-')}", getattr(arguments, flag), "at least 1")
    if arguments.reduction < 2:
        raise OutOfRangeError("--reduction", arguments.reduction, "at least 2")
    plain, space, config = compose_space(arguments)
    metric = arguments.metric or _default_metric(config)
    plain += _evaluated(plain, config, metric)
    name = config.name or f"tune-{run_name(config)}"
    folder = Path(config.output).absolute() / name
    settings = {
        "words": plain,
        "space": {key: dataclasses.asdict(dimension) for key, dimension in space.items()},
        "metric": metric,
        "mode": arguments.mode,
    }
    console = Console(emoji=False)
    require_resources(
        compose([*_first(plain, space), f"name={name}/trial-0000"], config_dir=arguments.config_dir)
    )
    with Interruptible("stopping every trial and saving it") as interrupt:
        _search(arguments, config, space, json.loads(json.dumps(settings)), folder, console, interrupt)
        ledger = Ledger(folder, json.loads(json.dumps(settings)), resume=True)
    _print_outcome(console, ledger, arguments.mode, plain, metric)
    emit(arguments, [dataclasses.asdict(trial) for trial in ledger.trials])
    if interrupt.requested:
        log(console, f"stopped; go on with:\n  {resume_command()}")
        return 130
    failed = [trial for trial in ledger.trials if trial.state == "failed"]
    return 1 if failed and len(failed) == len(ledger.trials) else 0


def split_space(words: Sequence[str]) -> tuple[list[str], dict[str, Dimension]]:
    """The plain settings, and key -> dimension of the others. Raises ConfigError without any dimension."""
    plain: list[str] = []
    space: dict[str, Dimension] = {}
    for text in words:
        word = split_word(text)
        dimension = dimension_of(word.key, word.value)
        if dimension is None:
            plain.append(text)
        else:
            space[word.key] = dimension
    if not space:
        raise ConfigError(
            "there is nothing to search; give a setting several values, such as "
            "'agent.discount=choice(0.97,0.99)' or 'agent.learning_rate=log(1e-4,1e-2)'"
        )
    return plain, space


def compose_space(arguments: argparse.Namespace) -> tuple[list[str], dict[str, Dimension], Config]:
    """The plain settings, what is searched, and the settings of a first trial. Every value of the space is
    composed once, so that none fails hours later.
    """
    plain, space = split_space(arguments.overrides)
    return plain, space, _checked(plain, space, arguments.config_dir)


def _first(plain: Sequence[str], space: Mapping[str, Dimension], **others: str) -> list[str]:
    return [*plain, *(f"{key}={others.get(key, dimension.ends[0])}" for key, dimension in space.items())]


def _checked(plain: Sequence[str], space: Mapping[str, Dimension], folder: Path | None) -> Config:
    for key in ("name", "output", "stages"):
        if key in space:
            raise ConfigError(
                f"{key} cannot be searched: it says where and what a trial is, not how it trains"
            )
    for key, dimension in space.items():
        for end in dimension.ends:
            agent_of(compose(_first(plain, space, **{key: end}), config_dir=folder))
    config = compose(_first(plain, space), config_dir=folder)
    if config.runtime.kind == "ray":
        raise UnsupportedError(
            "runtime=ray: trials are whole runs that Ray places, each a process with runtime.workers=N more; "
            "choose the cluster with --address"
        )
    return config


def _default_metric(config: Config) -> str:
    kinds = {task.score.kind for task in task_set_of(config)}
    _, factory, settings = agent_of(config)
    if not factory.needs(settings, task_set_of(config)).counts_steps:
        raise ConfigError(
            f"agent {factory.name!r} is not evaluated while it trains; name a metric of docs/metrics.md "
            "that it logs, such as --metric loss --mode min"
        )
    if len(kinds) > 1:
        raise ConfigError(
            "the tasks are measured by success and by returns, which have no mean; name what counts: "
            "--metric evaluation_success, or --metric evaluation_return/TASK"
        )
    return "evaluation_success" if kinds == {"success"} else "evaluation_return"


def _evaluated(plain: Sequence[str], config: Config, metric: str) -> list[str]:
    """Settings by which trials are evaluated as they run, on starts that no reported result uses."""
    keys, added = {split_word(word).key for word in plain}, []
    if metric.startswith("evaluation_") and not config.online.evaluate_every:
        added.append(f"online.evaluate_every={max(1, config.online.steps // EVALUATIONS)}")
    if "evaluation.split" not in keys:
        added.append("evaluation.split=validation")
    return added


def _search(
    arguments: argparse.Namespace,
    config: Config,
    space: Mapping[str, Dimension],
    settings: Mapping[str, object],
    folder: Path,
    console: Console,
    interrupt: Interruptible,
) -> None:
    from mtrl.distributed import cluster
    from mtrl.distributed.shared_storage import require_shared
    from mtrl.distributed.tuning import search as tuning

    processors = max(1, config.runtime.workers)
    cluster.connect(RuntimeConfig(kind="ray", address=arguments.address))
    try:
        largest = cluster.largest_node()
        if processors > largest:
            raise ResourceError(
                f"a trial needs {processors} processors on one node, one per worker process; the largest "
                f"node has {largest}. Lower runtime.workers to at most {largest}"
            )
        require_shared(folder)
        chosen = tuning.SearchSettings(
            space=space,
            metric=str(settings["metric"]),
            mode=arguments.mode,
            trials=arguments.trials,
            concurrent=arguments.concurrent,
            processors=processors,
            algorithm=arguments.search,
            seed=config.seed,
            early_stopping=not arguments.no_early_stopping,
            grace=arguments.grace,
            reduction=arguments.reduction,
            save_seconds=arguments.save_seconds,
        )
        ledger = Ledger(folder, settings, resume=arguments.resume == "auto")
        plain = [word for word in settings["words"] if split_word(word).key not in ("name", "output")]  # type: ignore[attr-defined]
        base = [sys.executable, "-m", "mtrl.launch.main", "train", *plain, f"output={folder.parent}"]
        if arguments.config_dir is not None:
            base += ["--config-dir", str(arguments.config_dir.absolute())]
        folder.mkdir(parents=True, exist_ok=True)
        with own_folder(folder), _Progress(console, ledger, settings) as progress:
            tuning.search(
                chosen,
                ledger,
                lambda words: [*base, *words, "--resume", "auto"],
                stopping=lambda: interrupt.requested,
                changed=progress.show,
            )
    finally:
        cluster.disconnect()


class _Progress:
    """The table of trials on a terminal, a line per change elsewhere."""

    def __init__(self, console: Console, ledger: Ledger, settings: Mapping[str, object]) -> None:
        self._console, self._ledger, self._metric = console, ledger, str(settings["metric"])
        self._live = (
            Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        )

    def __enter__(self) -> _Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, number: int) -> None:
        """Shows a trial that changed."""
        if self._live is not None:
            self._live.update(trial_table(self._ledger.trials, self._metric), refresh=True)
            return
        trial = self._ledger.trials[number]
        value = "-" if trial.value is None else f"{trial.value:.4g}"
        words = shlex.join(trial.words)
        log(
            self._console,
            f"{trial.name}  {trial.state}  step {trial.step:,}  {self._metric} {value}  {words}",
        )


def trial_table(trials: Sequence[TrialRecord], metric: str) -> Table:
    """Trials in their order, one a row."""
    table = Table("trial", "state", "step", metric, "settings", box=None, header_style="bold")
    for trial in trials:
        value = "-" if trial.value is None else f"{trial.value:.4g}"
        table.add_row(trial.name, trial.state, f"{trial.step:,}", value, " ".join(trial.words))
    return table


def _print_outcome(console: Console, ledger: Ledger, mode: str, plain: Sequence[str], metric: str) -> None:
    console.print(trial_table(ledger.trials, metric))
    for trial in ledger.trials:
        if trial.state == "failed":
            log(console, f"{trial.name} failed; its output: {ledger.folder / trial.name}.log")
    best = ledger.best(mode)
    if best is None:
        log(console, f"no trial has a value of {metric} yet")
        return
    own = [word for word in plain if split_word(word).key not in ("name", "evaluation.split")]
    again = ["train", *own, *best.words, f"name={ledger.folder.name}-best", "seed=2"]
    if any(word.startswith("seed=") for word in own):
        again.remove("seed=2")
    log(
        console,
        f"best: {os.path.relpath(ledger.folder / best.name)} ({metric} {best.value:.4g}). It was chosen on "
        "validation starts, so train it again, best with several seeds, and measure that:\n  "
        + shlex.join([*program(), *again]),
    )
