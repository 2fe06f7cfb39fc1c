"""`mtrl compare`: differences between results, with intervals, on the same starts."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from rich.console import Console

from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.evaluation import (
    Entry,
    EvaluationResult,
    RunGroup,
    common_episodes,
    common_runs,
    compare,
    compare_groups,
    comparison_table,
    doubts,
    entries_of,
    group_alike,
    group_table,
    group_verdict,
    require_comparable,
    run_group,
    summarise_group,
    uniform_beta_interval,
    verdict,
)

from .arguments import add_json, emit

EXAMPLES = (
    "mtrl compare runs/quickstart                   the policies of one run",
    "mtrl compare runs/old runs/new --policy bc     one policy of two runs, on equal starts",
    "mtrl compare a=runs/a1,runs/a2 b=runs/b1,runs/b2 --policy bc    seeds grouped: IQM",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of what is compared, and of the output."""
    parser.add_argument(
        "what",
        nargs="+",
        metavar="RUN",
        help="a run's folder, a result file or a folder of them, LABEL@RUN, or NAME=RUN,RUN for the seeds "
        "of one method",
    )
    parser.add_argument("--policy", metavar="LABEL", help="policy of every run, such as teacher or student")
    parser.add_argument(
        "--reference", metavar="NAME", help="column that the others are compared with (first)"
    )
    parser.add_argument("--group", action="store_true", help="group runs that differ only in their seed")
    parser.add_argument("--confidence", type=float, help="level of the intervals (that of the evaluation)")
    parser.add_argument(
        "--bonferroni",
        action="store_true",
        help="widen the intervals so that those of the means hold together",
    )
    add_json(parser, "the figures")


def run(arguments: argparse.Namespace) -> int:
    """Prints one table, a sentence per comparison and what casts doubt on them."""
    if arguments.confidence is not None and not 0.0 < arguments.confidence < 1.0:
        raise OutOfRangeError("--confidence", arguments.confidence, "between 0 and 1, for example 0.95")
    entries = entries_of(arguments.what, arguments.policy)
    if arguments.group:
        entries = group_alike(entries)
    entries = _reference_first(entries, arguments.reference)
    if len(entries) < 2:
        raise ConfigError(
            f"a comparison needs at least two; got {entries[0].name!r} alone. "
            "Name another run, or LABEL@RUN for another policy of this one"
        )
    first = entries[0].results[0]
    confidence = first.confidence if arguments.confidence is None else arguments.confidence
    if arguments.bonferroni:
        confidence = 1.0 - (1.0 - confidence) / (len(entries) - 1)
    console = Console(emoji=False)
    if any(len(entry.results) > 1 for entry in entries):
        record = show_groups([run_group(e.name, e.results) for e in entries], confidence, console)
    else:
        record = _compare_policies([entry.named() for entry in entries], confidence, console)
    record["warnings"] = _warn(entries, console)
    emit(arguments, record)
    return 0


def _compare_policies(results: list[EvaluationResult], confidence: float, console: Console) -> dict[str, Any]:
    for other in results[1:]:
        require_comparable(other, results[0])
    # one table has one reference: what broke for one policy is left out for all
    reference, *others = results = list(common_episodes(results))
    found = [compare(other, reference, confidence=confidence) for other in others]
    console.print(comparison_table(reference, found))
    for one in found:
        console.print(verdict(one), highlight=False, markup=False)
    return {
        "reference": reference.policy.shown,
        "confidence": confidence,
        "split": reference.split.name.lower(),
        "policies": [_policy_record(result) for result in results],
        "comparisons": [
            {**dataclasses.asdict(one), "starts": one.starts, "verdict": verdict(one)} for one in found
        ],
    }


def show_groups(groups: list[RunGroup], confidence: float, console: Console) -> dict[str, Any]:
    """Prints one table of groups, the first of which is the reference of the others; returns its figures."""
    reference, *others = groups
    for other in others:
        # before any resampling: a refusal should not take seconds
        require_comparable(reference.results[0], other.results[0])
    reference, *others = groups = list(common_runs(groups))
    summaries = [summarise_group(group, confidence) for group in groups]
    found = [compare_groups(other, reference, confidence) for other in others]
    console.print(group_table(summaries, found))
    for one in found:
        console.print(group_verdict(one), highlight=False, markup=False)
    return {
        "reference": reference.name,
        "confidence": confidence,
        "split": reference.results[0].split.name.lower(),
        "groups": [
            dataclasses.asdict(summary) | {"policies": [_policy_record(r) for r in group.results]}
            for summary, group in zip(summaries, groups, strict=True)
        ],
        "comparisons": [dataclasses.asdict(one) | {"verdict": group_verdict(one)} for one in found],
    }


def _policy_record(result: EvaluationResult) -> dict[str, Any]:
    """A policy's own levels, rates with both kinds of interval."""
    tasks = {}
    for task in result.tasks:
        solved = sum(episode.success_any for episode in result.task_episodes(task.name))
        tasks[task.name] = {
            "measured": task.score.kind,
            "episodes": task.episodes,
            "success": task.success_any.rate,
            "wilson": [task.success_any.low, task.success_any.high],
            "uniform_beta": list(uniform_beta_interval(solved, task.episodes, result.confidence)),
            "score": task.mean_score if task.is_normalised else None,
            "return": task.mean_return,
        }
    success = result.mean.success_any
    means = {"score": result.mean.score, "success": None if success is None else success.rate}
    return {**dataclasses.asdict(result.policy), **means, "tasks": tasks}


def _warn(entries: list[Entry], console: Console) -> list[str]:
    first = entries[0].results[0]
    found = []
    for entry in entries:
        for result in entry.results:
            differing = doubts(first, result)
            if differing:
                found.append(f"{entries[0].name} and {entry.name}: {', '.join(differing)}")
    found = list(dict.fromkeys(found))
    for line in found:
        console.print(f"warning: measured under different conditions, {line}", highlight=False, markup=False)
    return found


def _reference_first(entries: list[Entry], name: str | None) -> list[Entry]:
    if name is None:
        return entries
    chosen = [entry for entry in entries if name in (entry.name, entry.text)]
    if not chosen:
        raise ConfigError(
            f"--reference {name!r} is none of {', '.join(repr(entry.name) for entry in entries)}; "
            "give one of these names"
        )
    return [chosen[0], *(entry for entry in entries if entry is not chosen[0])]
