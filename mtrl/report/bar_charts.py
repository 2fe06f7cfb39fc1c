"""The bar charts of results side by side: success, normalised scores, and returns without a range."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mtrl.evaluation.formats import NO_INTERVAL, format_plain
from mtrl.evaluation.results import EvaluationResult
from mtrl.evaluation.statistics import Estimate
from mtrl.evaluation.table import MEAN_SCORE, MEAN_SUCCESS, Means, return_means, score_means

from .figures import Bar, bars_figure
from .scale import UNIT, Scale, Ticks, percent

NEAR = 1.5
"""Normalised scores whose intervals lie within this of zero share one scale."""


@dataclass(frozen=True)
class Measured:
    """A result and the bootstrap intervals of its charts and table, resampled when they are shown."""

    result: EvaluationResult

    @functools.cached_property
    def scores(self) -> Means | None:
        """Scores of tasks and their mean; None where success alone is measured, or no score is normalised."""
        return None if self.result.by_success else score_means(self.result)

    @functools.cached_property
    def returns(self) -> Means:
        """Mean returns."""
        return return_means(self.result)

    def score(self, name: str) -> Estimate | None:
        """The mean normalised score of a task measured by its return, where it has one."""
        return None if self.scores is None else self.scores.tasks.get(name)


@dataclass(frozen=True)
class BarRow:
    """One task's bars, or those of a mean."""

    name: str
    figure: Markup
    bars: tuple[Bar, ...]
    is_mean: bool = False
    ticks: Ticks = ()
    """Of its own scale, where its values do not fit the one that the others share."""


@dataclass(frozen=True)
class BarChart:
    """Rows of bars that measure one thing."""

    kind: str
    """"success", "score" or "return"."""
    rows: tuple[BarRow, ...]
    ticks: Ticks
    """Of the scale that the rows without one of their own share; empty where each has its own."""


def charts_of(results: Sequence[Measured], colours: Mapping[str, str]) -> tuple[BarChart, ...]:
    """A chart for the tasks measured by success, one for normalised scores, one for returns without a range.

    `colours` maps a policy's label to the name of its colour. The results are comparable. A task is drawn
    where every policy has figures of it.
    """
    measured = [
        task for task in results[0].result.tasks if all(one.result.task(task.name) for one in results)
    ]
    solved = [task.name for task in measured if task.by_success]
    scored = [task.name for task in measured if task.is_normalised and not task.by_success]
    plain = [task.name for task in measured if not task.is_normalised]
    found = []
    if solved:
        found.append(_success_chart(results, solved, colours))
    if scored:
        found.append(_score_chart(results, scored, colours))
    if plain:
        found.append(_return_chart(results, plain, colours))
    return tuple(found)


def score_scale(estimates: Sequence[Estimate]) -> Scale:
    """A scale for normalised scores that holds 0, 100% and every interval."""
    lows, highs = [estimate.low for estimate in estimates], [estimate.high for estimate in estimates]
    return Scale.linear(min([0.0, *lows]), max([1.0, *highs]), 5)


def percent_interval(estimate: Estimate) -> str:
    """An interval in percent, "[30.1, 95.4]"; "[-]" where there is none."""
    if not estimate.has_interval:
        return NO_INTERVAL.replace("-", "−")
    return f"[{_tenths(100 * estimate.low)}, {_tenths(100 * estimate.high)}]"


def _success_chart(results: Sequence[Measured], names: Sequence[str], colours: Mapping[str, str]) -> BarChart:
    levels = [(MEAN_SUCCESS, [rate for one in results if (rate := one.result.mean.success_any) is not None])]
    for name in names:
        tasks = [task for one in results if (task := one.result.task(name)) is not None]
        levels.append((name, [task.success_any for task in tasks]))
    rows: list[BarRow] = []
    for name, rates in levels:
        bars = _percent_bars(results, [rate.estimate for rate in rates], colours)
        rows.append(BarRow(name, bars_figure(name, bars, UNIT), bars, is_mean=not rows))
    return BarChart("success", tuple(rows), UNIT.placed(share=True))


def _score_chart(results: Sequence[Measured], names: Sequence[str], colours: Mapping[str, str]) -> BarChart:
    no_returns = [""] * len(results)
    levels = [(MEAN_SCORE, [one.scores.mean for one in results if one.scores is not None], no_returns)]
    for name in names:
        scores = [score for one in results if (score := one.score(name)) is not None]
        levels.append((name, scores, [_plain(one.returns.tasks[name]) for one in results]))
    # a task far beyond its range would press all others against zero: it has a scale of its own
    near = [scores for _, scores, _ in levels if all(_is_near(estimate) for estimate in scores)]
    shared = score_scale([estimate for scores in near for estimate in scores])
    rows: list[BarRow] = []
    for name, scores, returns in levels:
        bars = _percent_bars(results, scores, colours, returns)
        scale = shared if scores in near else score_scale(scores)
        own = () if scores in near else scale.placed(share=True)
        rows.append(BarRow(name, bars_figure(name, bars, scale, (1.0,)), bars, is_mean=not rows, ticks=own))
    return BarChart("score", tuple(rows), shared.placed(share=True) if near else ())


def _return_chart(results: Sequence[Measured], names: Sequence[str], colours: Mapping[str, str]) -> BarChart:
    rows = []
    for name in names:
        found = [one.returns.tasks[name] for one in results]
        scale = Scale.linear(min(0.0, *(e.low for e in found)), max(0.0, *(e.high for e in found)))
        bars = []
        for one, estimate in zip(results, found, strict=True):
            level, _, interval = _plain(estimate).partition(" ")
            label = one.result.policy.shown
            bars.append(Bar(label, colours[label], estimate, level, interval))
        rows.append(BarRow(name, bars_figure(name, bars, scale), tuple(bars), ticks=scale.placed()))
    return BarChart("return", tuple(rows), ())


def _percent_bars(
    results: Sequence[Measured],
    estimates: Sequence[Estimate],
    colours: Mapping[str, str],
    further: Sequence[str] | None = None,
) -> tuple[Bar, ...]:
    labels = [one.result.policy.shown for one in results]
    return tuple(
        Bar(label, colours[label], estimate, percent(estimate.value), percent_interval(estimate), more)
        for label, estimate, more in zip(labels, estimates, further or [""] * len(labels), strict=True)
    )


def _is_near(estimate: Estimate) -> bool:
    return estimate.low >= -NEAR and estimate.high <= NEAR


def _plain(estimate: Estimate) -> str:
    return format_plain(estimate).replace("-", "−")


def _tenths(value: float) -> str:
    # + 0.0: minus zero is no number that a page should show
    return f"{round(value, 1) + 0.0:,.1f}".replace("-", "−")
