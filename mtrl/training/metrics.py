"""Meaning of logged names: agents and learners declare their metrics with the code that computes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mtrl.errors import ConfigError
from mtrl.panels import metric_pattern


@dataclass(frozen=True)
class Metric:
    """One number that is logged."""

    formula: str
    """Formula of the number, in plain text or with the equation of the paper."""
    unit: str
    """"1" for a pure number, otherwise such as "s", "1/s", "decisions"."""
    where: str
    """The function that computes it, "package.module:Class.method"."""

    def __post_init__(self) -> None:
        if not self.formula or not self.unit:
            raise ConfigError("a metric needs a formula and a unit; a pure number has the unit '1'")
        if not re.fullmatch(r"[\w.]+:[\w.]+", self.where):
            raise ConfigError(f"a metric's place is 'package.module:Class.method'; got {self.where!r}")


Metrics = Mapping[str, Metric]
"""Logged name -> what it means. "{task}" in a name stands for any task, as in "success/{task}",
"{layer}" for a number."""


def undocumented(logged: Iterable[str], *declared: Metrics) -> list[str]:
    """The logged names that no declaration covers, sorted; "step" is the axis, not a metric."""
    patterns = [metric_pattern(name) for metrics in declared for name in metrics]
    names = sorted(set(logged) - {"step"})
    return [name for name in names if not any(pattern.fullmatch(name) for pattern in patterns)]


def metrics_table(metrics: Metrics) -> str:
    """The declarations as a Markdown table, in the order in which they were declared."""
    rows = ["| name | formula | unit | computed in |", "|---|---|---|---|"]
    for name, metric in metrics.items():
        cells = (f"`{name}`", metric.formula, metric.unit, f"`{metric.where}`")
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"
