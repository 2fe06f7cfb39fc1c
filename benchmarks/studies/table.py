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

from .equal import Column, at_equal_cost, return_interval
from .record import REFERENCES, Finished, Study, TaskOutcome

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
        *_returns(columns),
        *_equal_cost(study, columns, finished, "step"),
        *_equal_cost(study, columns, finished, "minutes"),
        *_cosines(study, finished),
        *_figures(study, finished),
        *_origin({key: finished[key] for run in study.runs() if (key := study.key(*run)) in finished}),
    ]
    return "\n\n".join(parts) + "\n"


def _columns(study: Study, finished: Mapping[str, Finished]) -> dict[str, Column]:
    found: dict[str, Column] = {}
    for method, (variant, label) in study.methods.items():
        runs = [finished[key].policies[label] for key in study.keys(variant) if key in finished]
        found[method] = [_in_one_unit(study, run) for run in runs]
    return found


def _in_one_unit(study: Study, run: Mapping[str, TaskOutcome]) -> Mapping[str, TaskOutcome]:
    """Task, by its name in the tables -> its outcome, with returns divided by the task's unit."""
    found = {}
    for task, outcome in run.items():
        name, unit, score = study.units.get(task, (task, 1.0, outcome.score))
        found[name] = outcome.divided(unit, score)
    return found


def _scores(columns: Mapping[str, Column], split: str) -> list[str]:
    shown = {method: runs for method, runs in columns.items() if runs}
    names = list(next(iter(shown.values()))[0])
    episodes = max(len(o.outcomes) or len(o.returns) for o in next(iter(shown.values()))[0].values())
    rows = [["task", *shown]]
    for name in names:
        cells = []
        for runs in shown.values():
            if name not in runs[0]:
                cells.append("")
                continue
            scores = [100 * run[name].mean_score for run in runs]
            cells.append(f"{np.mean(scores):.1f} ({', '.join(f'{score:.0f}' for score in scores)})")
        rows.append([name, *cells])
    tables = {
        m: np.array([[run[name].mean_score for name in names] for run in r])
        for m, r in shown.items()
        if set(names) <= set(r[0])
    }
    for title, statistic in (
        ("mean of the tasks", mean_score),
        ("interquartile mean", interquartile_mean),
        ("optimality gap", optimality_gap),
    ):
        estimates = [
            _percent(stratified_bootstrap(tables[m], statistic, _generator(), whole_runs=True))
            if m in tables
            else ""
            for m in shown
        ]
        rows.append([f"**{title}**", *estimates])
    reference, *others = tables
    if others:
        chances = [
            _percent(
                independent_bootstrap(
                    tables[m], tables[reference], probability_of_improvement, _generator(), whole_runs=True
                )
            )
            if m in others
            else ""
            for m in shown
        ]
        rows.append([f"**beats {reference}**", *chances])
    caption = (
        f"Normalised score in % (success counts 100) on {split} starts, {episodes} a task: mean over seeds, "
        "in parentheses the seeds. Bold rows are over all tasks, with 95% intervals of a "
        "bootstrap over whole runs, which are too narrow for fewer than five runs. "
        f'"Beats {reference}": probability that a run scores higher than one of {reference}, averaged over '
        "tasks; 50 means no difference."
    )
    return ["## Scores", _markdown(rows), caption]


def _returns(columns: Mapping[str, Column]) -> list[str]:
    """Returns with intervals, for tasks that are judged by them; none where every task has successes."""
    shown = {method: runs for method, runs in columns.items() if runs}
    if not shown:
        return []
    names = [name for name, outcome in next(iter(shown.values()))[0].items() if outcome.returns]
    if not names:
        return []
    rows = [["task", *shown]]
    for name in names:
        estimates = [
            return_interval([run[name].returns for run in runs], _generator()) if name in runs[0] else None
            for runs in shown.values()
        ]
        rows.append([name, *(f"{e.value:.1f} [{e.low:.1f}, {e.high:.1f}]" if e else "" for e in estimates)])
    caption = (
        "Mean return, with the 95% interval of a bootstrap that redraws the runs, where there are several, "
        "and the starts within each run."
    )
    return ["## Returns", _markdown(rows), caption]


COSTS = {
    "step": ("many steps", "Steps are those of all tasks together."),
    "minutes": (
        "much CPU time",
        "Minutes count collecting and learning, not evaluating: steps times the median CPU time of a step.",
    ),
}
"""Cost -> how it is spoken of."""


def _equal_cost(
    study: Study, columns: Mapping[str, Column], finished: Mapping[str, Finished], cost: str
) -> list[str]:
    if study.equal_cost is None or not all(columns[method] for method in study.equal_cost):
        return []
    runs = [
        [finished[key] for key in study.keys(study.methods[method][0]) if key in finished]
        for method in study.equal_cost
    ]
    scores = {name: outcome.score for name, outcome in columns[study.equal_cost[0]][0].items()}
    found = at_equal_cost(runs[0], runs[1], scores, cost)
    if found is None:
        return []
    rows = [["task", *study.equal_cost]]
    for name in scores:
        cells = [[100 * moment.scores[name] for moment in side] for side in found]
        rows.append([name, *(f"{np.mean(c):.1f} ({', '.join(f'{v:.0f}' for v in c)})" for c in cells)])
    means = [[100 * float(np.mean(list(moment.scores.values()))) for moment in side] for side in found]
    rows.append(
        ["**mean of the tasks**", *(f"{np.mean(m):.1f} ({', '.join(f'{v:.0f}' for v in m)})" for m in means)]
    )
    for title, of in (("steps", "step"), ("CPU minutes", "minutes")):
        cells = [[getattr(moment, of) for moment in side] for side in found]
        rows.append(
            [
                title,
                *(
                    ", ".join(f"{value:,.4g}" if of == "minutes" else f"{value:,.0f}" for value in c)
                    for c in cells
                ),
            ]
        )
    spent, sentence = COSTS[cost]
    caption = (
        f"Each seed of {study.equal_cost[1]} at its first evaluation that had taken as {spent} as the whole "
        f"run of the same seed of {study.equal_cost[0]}; where its run ends before, at its end, and the "
        f"other at its last evaluation by then. {sentence}"
    )
    return [f"## At equal {'CPU minutes' if cost == 'minutes' else 'steps'}", _markdown(rows), caption]


def _cosines(study: Study, finished: Mapping[str, Finished]) -> list[str]:
    """Mean cosines between task gradients per pair of tasks, a column per variant that measured them."""
    measured = {
        variant: [finished[key].cosines for key in study.keys(variant) if key in finished]
        for variant in study.variants
    }
    measured = {variant: kept for variant, made in measured.items() if (kept := [c for c in made if c])}
    if not measured:
        return []
    # variants may differ in their tasks
    pairs: dict[str, dict[str, None]] = {}
    for run in (run for runs in measured.values() for run in runs):
        for part, found in run.items():
            pairs.setdefault(part, {}).update(dict.fromkeys(found))
    parts = []
    for part, named in pairs.items():
        rows = [["pair", *measured]]
        for pair in named:
            cells = [
                [run[part][pair] for run in runs if pair in run.get(part, {})] for runs in measured.values()
            ]
            rows.append([pair.replace("|", "and"), *(f"{np.mean(c):.3f}" if c else "" for c in cells)])
        parts += [f"## Cosines between task gradients: {part}", _markdown(rows)]
    return [*parts, "Means over the second half of each run and over seeds; below 0 the tasks pull apart."]


def _figures(study: Study, finished: Mapping[str, Finished]) -> list[str]:
    runs = {study.key(*run): finished[study.key(*run)] for run in study.runs() if study.key(*run) in finished}
    judged = ("_success", "_score")
    names = sorted({name for run in runs.values() for name in run.figures if not name.endswith(judged)})
    if not names:
        return []
    if len(study.variants) == 1 and not study.references:
        rows = [["figure", *runs]]
        rows += [[f"`{name}`", *(_figure(run, name) for run in runs.values())] for name in names]
        return ["## Further figures", _markdown(rows)]
    groups = {v: [runs[key] for key in study.keys(v) if key in runs] for v in (REFERENCES, *study.variants)}
    groups = {variant: found for variant, found in groups.items() if found}
    rows = [["figure", *groups]]
    rows += [[f"`{name}`", *(_mean_figure(found, name) for found in groups.values())] for name in names]
    return ["## Further figures", _markdown(rows), "Mean over seeds, in parentheses the seeds."]


def _figure(run: Finished, name: str) -> str:
    return f"{run.figures[name]:.3g}" if name in run.figures else ""


def _mean_figure(runs: Sequence[Finished], name: str) -> str:
    values = [run.figures[name] for run in runs if name in run.figures]
    if len(values) < 2:
        return "".join(f"{value:.3g}" for value in values)
    return f"{np.mean(values):.3g} ({', '.join(f'{value:.3g}' for value in values)})"


def _origin(named: Mapping[str, Finished]) -> list[str]:
    runs = list(named.values())
    several = len({run.seed for run in runs}) < len(runs)
    rows = [["run" if several else "seed", "minutes", "commit", "made"]]
    rows += [
        [key if several else str(run.seed), f"{run.minutes:.1f}", f"`{_short(run.commit)}`", run.created]
        for key, run in named.items()
    ]
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
    if not estimate.has_interval:
        return f"{value:.1f}"
    return f"{value:.1f} [{low:.0f}, {high:.0f}]"


def _generator() -> np.random.Generator:
    return np.random.default_rng(RESAMPLING_SEED)
