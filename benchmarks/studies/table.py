"""A study's page, a function of its file alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mtrl.evaluation import (
    Estimate,
    independent_bootstrap,
    interquartile_mean,
    mean_score,
    optimality_gap,
    probability_of_improvement,
    stratified_bootstrap,
)

from .record import Finished, Study, TaskOutcome

RESAMPLING_SEED = 0
"""Seed behind every interval, so that a page repeats itself."""


def draw(study: Study, finished: Mapping[str, Finished]) -> str:
    """The page of a study in Markdown: scores per task and over tasks, further figures, how it was made."""
    columns = _columns(study, finished)
    runs = [finished[study.key(*run)] for run in study.runs() if study.key(*run) in finished]
    parts = [
        f"# Study: {study.name}",
        study.question,
        f"{len(runs)} of {len(study.runs())} runs are finished. This page is drawn from `{study.name}.json` "
        "by `python -m benchmarks.studies --draw`; `make results` runs what is missing.",
        *(_scores(columns, runs[0].split) if any(columns.values()) else []),
        *_figures(study, finished),
        *_origin(runs),
    ]
    return "\n\n".join(parts) + "\n"


Column = Sequence[Mapping[str, TaskOutcome]]
"""A method's runs, each task -> outcome."""


def _columns(study: Study, finished: Mapping[str, Finished]) -> dict[str, Column]:
    found: dict[str, Column] = {}
    for method, (variant, label) in study.methods.items():
        keys = [study.key(variant, seed) for seed in study.seeds]
        found[method] = [finished[key].policies[label] for key in keys if key in finished]
    return found


def _scores(columns: Mapping[str, Column], split: str) -> list[str]:
    shown = {method: runs for method, runs in columns.items() if runs}
    names = list(next(iter(shown.values()))[0])
    episodes = max(len(o.outcomes) or len(o.returns) for o in next(iter(shown.values()))[0].values())
    rows = [["task", *shown]]
    for name in names:
        cells = []
        for runs in shown.values():
            scores = [100 * run[name].mean_score for run in runs]
            cells.append(f"{np.mean(scores):.1f} ({', '.join(f'{score:.0f}' for score in scores)})")
        rows.append([name, *cells])
    tables = {m: np.array([[run[name].mean_score for name in names] for run in r]) for m, r in shown.items()}
    for title, statistic in (
        ("mean of the tasks", mean_score),
        ("interquartile mean", interquartile_mean),
        ("optimality gap", optimality_gap),
    ):
        estimates = [
            stratified_bootstrap(table, statistic, _generator(), whole_runs=True) for table in tables.values()
        ]
        rows.append([f"**{title}**", *(_percent(estimate) for estimate in estimates)])
    reference, *others = tables
    if others:
        chances = [
            independent_bootstrap(
                tables[m], tables[reference], probability_of_improvement, _generator(), whole_runs=True
            )
            for m in others
        ]
        rows.append([f"**beats {reference}**", "", *(_percent(chance) for chance in chances)])
    caption = (
        f"Normalised score in % (success counts 100) on {split} starts, {episodes} a task: mean over seeds, "
        "in parentheses the seeds. Bold rows are over all tasks, with 95% intervals of a "
        "bootstrap over whole runs, which are too narrow for fewer than five runs. "
        f'"Beats {reference}": probability that a run scores higher than one of {reference}, averaged over '
        "tasks; 50 means no difference."
    )
    return ["## Scores", _markdown(rows), caption]


def _figures(study: Study, finished: Mapping[str, Finished]) -> list[str]:
    runs = {study.key(*run): finished[study.key(*run)] for run in study.runs() if study.key(*run) in finished}
    names = sorted({name for run in runs.values() for name in run.figures if not name.endswith("_success")})
    if not names:
        return []
    rows = [["figure", *runs]]
    rows += [[f"`{name}`", *(_figure(run, name) for run in runs.values())] for name in names]
    return ["## Further figures", _markdown(rows)]


def _figure(run: Finished, name: str) -> str:
    return f"{run.figures[name]:.3g}" if name in run.figures else ""


def _origin(runs: Sequence[Finished]) -> list[str]:
    rows = [["seed", "minutes", "commit", "made"]]
    rows += [[str(run.seed), f"{run.minutes:.1f}", f"`{_short(run.commit)}`", run.created] for run in runs]
    commands = "\n".join(["```", *(run.command for run in runs), "```"])
    machines = "; ".join(dict.fromkeys(run.hardware for run in runs))
    versions = "; ".join(
        dict.fromkeys(", ".join(f"{k} {v}" for k, v in sorted(run.packages.items())) for run in runs)
    )
    note = f"Two runs side by side, one thread each. Machine: {machines}. Versions: {versions}."
    return ["## How it was made", commands, _markdown(rows), note]


def _short(commit: str | None) -> str:
    """The commit's first twelve digits; what made a run uncommitted stays visible."""
    if commit is None:
        return "none"
    return commit[:12] + ("-dirty" if commit.endswith("-dirty") else "")


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *body])


def _percent(estimate: Estimate) -> str:
    value, low, high = (100 * x for x in (estimate.value, estimate.low, estimate.high))
    return f"{value:.1f} [{low:.0f}, {high:.0f}]"


def _generator() -> np.random.Generator:
    return np.random.default_rng(RESAMPLING_SEED)
