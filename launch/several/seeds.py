"""`seeds=1,2,3` of `mtrl train`: a run for each seed, a line of each, and one table of all at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mtrl.errors import ConfigError, ExistsError
from mtrl.evaluation import EvaluationResult, run_group
from mtrl.pipeline import Config, log, run_name

from ..compare import show_groups
from ..compose import compose
from ..words import split_word

KEY = "seeds"


def seeds_of(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The seeds of `seeds=1,2,3`, or none, and all other words; raises ConfigError for what are no seeds."""
    found = [word for word in words if word.partition("=")[0] == KEY]
    others = [word for word in words if word not in found]
    if not found:
        return [], others
    seeds = [part.strip() for part in split_word(found[-1]).value.strip("[]").split(",")]
    if not all(part.isdecimal() for part in seeds) or len(set(seeds)) < max(2, len(seeds)) or len(found) > 1:
        raise ConfigError(f"{' '.join(found)}: expected two or more different seeds, once, as in seeds=1,2,3")
    if any(word.partition("=")[0] == "seed" for word in others):
        raise ConfigError(f"{found[0]} and seed=... contradict each other; give one of them")
    return seeds, others


def configs_of(
    words: Sequence[str], seeds: Sequence[str], config_dir: Path | None, *, may_exist: bool
) -> list[Config]:
    """A configuration for each seed, its run named after it.

    Raises ExistsError for a run that is there already, before any of them is begun, unless it `may_exist`.
    """
    base = compose(words, command="train", config_dir=config_dir)
    configs = [
        compose(
            [*words, f"seed={seed}", *([f"name={base.name}-seed{seed}"] if base.name else [])],
            command="train",
            config_dir=config_dir,
        )
        for seed in seeds
    ]
    there = [str(path) for path in (Path(c.output) / run_name(c) for c in configs) if path.exists()]
    verb = "is" if len(there) == 1 else "are"
    if there and not may_exist:
        raise ExistsError(
            f"{', '.join(there)} {verb} there already; pass --resume auto to go on, "
            "--overwrite to begin again, or choose another name"
        )
    return configs


def seed_line(run: Path, results: Sequence[EvaluationResult]) -> str:
    """What a run reached: of each policy the mean success or score, or a return for each task."""
    reached = [f"{result.policy.shown} {_level(result)}" for result in results]
    return f"{run}: {'; '.join(reached) or 'finished'} (all of it: mtrl evaluate {run})"


def _level(result: EvaluationResult) -> str:
    if result.mean.score is not None:
        return f"{'success' if result.by_success else 'score'} {100 * result.mean.score:.1f}%"
    return ", ".join(f"return {task.mean_return:.1f} on {task.name}" for task in result.tasks)


def compare_seeds(
    name: str, runs: Sequence[Sequence[EvaluationResult]], console: Console
) -> dict[str, Any] | None:
    """Prints one table over all runs, a column for each policy that was trained; None where none compares."""
    labels = dict.fromkeys(result.policy.label for results in runs for result in results)
    groups = []
    for label in labels:
        found = [result for results in runs for result in results if result.policy.label == label]
        if len({result.policy.identity for result in found}) < 2:
            # random play and the best constant action are the same policy in every run
            continue
        try:
            groups.append(run_group(f"{name} {found[0].policy.shown}", found))
        except ConfigError as error:
            log(console, f"the runs are finished and {found[0].policy.shown} is not compared: {error}")
    if not groups:
        return None
    return show_groups(groups, groups[0].results[0].confidence, console)
