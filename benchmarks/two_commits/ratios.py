"""Ratios of two commits' figures: direction, intervals over rounds, the geometric mean, the table."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypedDict

from rich.table import Table
from scipy.stats import t as student_t

from .trees import CommitError

CONFIDENCE = 0.95
KINDS = {
    # steps per second, and times of others over ours
    r"stepping/(ratio_vs_async_\w+16|envpool_over_python_metaworld|mixed_efficiency)": "rate",
    r"sac/(ratio_(sb3|rllib)_fp32|steps_per_second)": "rate",
    r"sac/(updates_per_second_fp32|bf16_speedup)(_one_thread|_published_size)?": "rate",
    r"gradients/(loop|retain_graph|torchjd|autogram)_ratio_k\d+(_small)?": "rate",
    # times and memory, and ours over those of others
    r"stepping/(overhead_)?cartpole_us": "cost",
    r"gradients/((plain|best|surgery)_ratio_k\d+(_small)?|pcgrad_ms_k\d+|streamed_peak_ratio)": "cost",
    # time added, as a share of the simulator's own: -1 would be no time at all
    r"stepping/overhead_metaworld(_official)?": "added share",
}
"""Pattern of benchmark/figure -> whether higher or lower is better. A figure that no pattern matches
is refused: add it here with its direction."""


class Pair(TypedDict):
    """One benchmark at both commits, one directly after the other; as it is kept in a file."""

    script: str
    round: int
    before: dict[str, float]
    after: dict[str, float]
    seconds: list[float]


@dataclass(frozen=True)
class Ratio:
    """AFTER over BEFORE, above 1 where AFTER is better; without an interval for a single round."""

    ratio: float
    low: float | None
    high: float | None

    def words(self) -> tuple[str, str]:
        """The ratio and its interval for a table."""
        interval = "" if self.low is None or self.high is None else f"{self.low:.3f} to {self.high:.3f}"
        return f"{self.ratio:.3f}", interval


@dataclass(frozen=True)
class Figure:
    """Medians over rounds as the benchmark wrote them, and the mean ratio, higher being better."""

    before: float
    after: float
    ratio: Ratio


@dataclass(frozen=True)
class Comparison:
    """Every figure that both commits have, and their geometric mean; None without a figure."""

    figures: Mapping[str, Figure]
    mean: Ratio | None
    left_out: Mapping[str, str]
    """Figure -> why it is in neither the figures nor the mean."""

    @staticmethod
    def of(pairs: Sequence[Pair]) -> Comparison:
        """What the pairs of all rounds come to; raises CommitError for a figure that `KINDS` lacks."""
        figures: dict[str, Figure] = {}
        left_out: dict[str, str] = {}
        logs: list[list[float]] = []
        for key in dict.fromkeys(key for pair in pairs for key in (*pair["before"], *pair["after"])):
            own = [pair for pair in pairs if pair["script"] == key.partition("/")[0]]
            old = [pair["before"][key] for pair in own if key in pair["before"]]
            new = [pair["after"][key] for pair in own if key in pair["after"]]
            turned = [(better(key, a), better(key, b)) for a, b in zip(old, new, strict=False)]
            ratios = [math.log(b / a) for a, b in turned if a is not None and b is not None]
            if not old or not new:
                left_out[key] = f"only {'before' if old else 'after'} has it"
            elif not len(old) == len(new) == len(own):
                left_out[key] = "not every round has it"
            elif len(ratios) < len(own):
                left_out[key] = "not always above zero, so without ratio"
            else:
                figures[key] = Figure(statistics.median(old), statistics.median(new), ratio_of(ratios))
                logs.append(ratios)
        # a round hits all its figures alike, so rounds are the sample and not figures
        means = [statistics.mean(of_round) for of_round in zip(*logs, strict=True)]
        return Comparison(figures, ratio_of(means) if means else None, left_out)

    def record(self) -> dict[str, object]:
        """The same for a file."""
        return asdict(self)

    def table(self, before: str, after: str) -> Table:
        """The same for a person."""
        title = f"{before}, {after}: ratios above 1 are better"
        table = Table(title=title, title_justify="left", header_style="bold")
        table.add_column("figure", overflow="fold")
        for heading in ("before", "after", "ratio", f"{CONFIDENCE:.0%} interval"):
            table.add_column(heading, justify="right")
        for key, figure in self.figures.items():
            table.add_row(key, f"{figure.before:.3g}", f"{figure.after:.3g}", *figure.ratio.words())
        if self.mean is not None:
            table.add_section()
            table.add_row("geometric mean", "", "", *self.mean.words(), style="bold")
        return table


def better(key: str, value: float) -> float | None:
    """A figure turned so that higher is better; None for one that is not finite or has no ratio to others.

    Raises CommitError for a figure that is not in `KINDS`.
    """
    kind = next((kind for pattern, kind in KINDS.items() if re.fullmatch(pattern, key)), None)
    if kind is None:
        raise CommitError(
            f"{key} is a figure without a direction; add it to KINDS in benchmarks/two_commits/ratios.py"
        )
    positive = 1 + value if kind == "added share" else value
    if not 0 < positive < math.inf:
        return None
    return positive if kind == "rate" else 1 / positive


def ratio_of(logs: Sequence[float]) -> Ratio:
    """The mean of log ratios, one a round, with Student's interval, as ratios."""
    center = statistics.mean(logs)
    if len(logs) < 2:
        return Ratio(math.exp(center), None, None)
    error = statistics.stdev(logs) / math.sqrt(len(logs))
    reach = float(student_t.ppf(0.5 + CONFIDENCE / 2, len(logs) - 1)) * error
    return Ratio(math.exp(center), math.exp(center - reach), math.exp(center + reach))
