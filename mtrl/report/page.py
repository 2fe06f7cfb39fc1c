"""The report: one self-contained HTML page."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from mtrl.atomic import write_text
from mtrl.evaluation.formats import format_percent, format_rate
from mtrl.evaluation.results import OWN, EvaluationResult
from mtrl.evaluation.table import MEAN_SCORE, MEAN_SUCCESS
from mtrl.run_directory import POLICIES

from .bar_charts import Measured
from .chart import PALETTE
from .conflict_figures import scale_figure
from .contents import RunContents, Value, read_run
from .embedded_videos import video_rows
from .figures import WIDE, latency_figure, paths_figure, plans_figure
from .learning import learnt
from .learning_figures import MANY_TASKS
from .learning_page import OPEN_FIGURES, conflict_parts, learning_parts, learnt_lines
from .paths import Side
from .result_groups import ResultGroup, result_groups, version_figures
from .scale import percent, short_number
from .task_curves import grouped

_LABELS = [policy.label for policy in sorted(POLICIES, key=lambda policy: policy.headline)]
HEADLINE = (
    *(f"{label}_success" for label in (*_LABELS, "random", "constant")),
    *(f"{label}_score" for label in (*_LABELS, "random", "constant")),
    *(f"point_{label}_success" for label in _LABELS),
    "point_modes_kept",
    "student_latency_us_p50",
    "student_latency_us_p99",
    "realtime_success",
    "realtime_episodes",
    "deadline_miss_fraction",
    "wall_seconds",
)
"""Keys of `summary.json` in the order in which they are read; all others follow."""

MOST = 6
"""Figures of a headline."""

OPEN_BROKEN = 20
"""Broken episodes that are listed openly; the others are folded away."""

_MEANS = ("_success", "_score")
"""Ends of the keys of means over tasks, behind a policy's label."""

_NO_MEANS = ("point_", "realtime_")
"""Beginnings of other keys with these ends."""

_WORDS = {"bc": "BC", "us": "", "seconds": "time"}
"""How the words of a key are printed; the unit stands with the value."""


def write_report(run_directory: Path) -> Path:
    """Writes `report.html` into a run directory from the files there, replacing an older one.

    Shows `summary.json`, `evaluations/*.json`, `point_paths.json`, `plans/*.json`, `videos/*.json`,
    `latency.json`, `deployments/*.json`, `metrics.jsonl` and `*/metrics.jsonl`, `cosines.jsonl`,
    `config.yaml`. What is absent is said to be, with the command that makes it. The page loads nothing from
    the network, runs no script and is the same for the same files; videos too large for it are linked in
    `videos/`.

    Raises:
        ConfigError: there is no such directory.
        IntegrityError: one of the files is truncated or edited; the message names file and field.
        ResourceError: the disk is full.
    """
    page = render(read_run(run_directory), run_directory)
    return write_text(run_directory / "report.html", page, overwrite=True)


def render(run: RunContents, place: Path) -> str:
    """The page as text; `place` is its folder, as the commands on the page name it."""
    groups = result_groups(run.evaluations)
    order = groups[0].results[0].task_names if groups else ()
    files = [grouped(curves, order) for curves in run.curves]
    own = next((file for file in files if file.curves.source == "metrics.jsonl"), None)
    learned = None if own is None else learnt(own.tasks, run.evaluations)
    template = _environment().get_template("page.html")
    return template.render(
        run=run,
        palette=PALETTE,
        place=shlex.quote(str(place)),
        exported=(place / "artefact").is_dir(),
        headline=headline(run, groups),
        summary=[tile(key, value, run.own) for key, value in sorted(run.summary, key=_headline_order)],
        groups=groups,
        by_success=all(group.kind == "success" for group in groups),
        versions=version_figures(run.evaluations),
        paths=[
            (
                drawn.policy,
                paths_figure(drawn, run.paths),
                [(side.value, drawn.count(side)) for side in Side],
            )
            for drawn in run.paths
        ],
        plans=[(drawn, plans_figure(drawn)) for drawn in run.plans],
        video_rows=video_rows(run.videos, place),
        latency=latency_figure(run.latency, WIDE) if run.latency else None,
        delays=[
            (episode.task, delay, latency_figure(delay))
            for episode in run.deployments
            if (delay := episode.observation_to_command) is not None
        ],
        warnings=_distinct(warning for episode in run.deployments for warning in episode.warnings),
        open_figures=OPEN_FIGURES,
        open_table=MANY_TASKS,
        open_broken=OPEN_BROKEN,
        learnt=learned,
        learning=learning_parts(files, learned),
        learnt_lines=learnt_lines(learned) if learned else [],
        conflicts=conflict_parts(run.conflicts),
        heat_scale=scale_figure(),
        sources=_sources(run.evaluations),
    )


@functools.cache
def _environment() -> Environment:
    """The templates, compiled once per process."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=short_number, percent=percent, points=points, breakable=breakable, tenths=tenths
    )
    return environment


@dataclass(frozen=True)
class Tile:
    """One figure."""

    label: str
    shown: str
    value: float


def headline(run: RunContents, groups: tuple[ResultGroup, ...]) -> list[Tile]:
    """At most `MOST` figures: the means of the first policies, then latency, real time and duration."""
    costs = [*_speed(run), *_safety(run), *_duration(run)]
    means = [tile for one in (groups[0].measured if groups else ()) for tile in _mean(one)]
    return [*means[: MOST - len(costs)], *costs]


def _mean(one: Measured) -> list[Tile]:
    """What decides: the mean score where some task is measured by its return, else the mean success."""
    label, rate = one.result.policy.shown, one.result.mean.success_any
    if one.scores is not None:
        mean = one.scores.mean
        return [Tile(f"{MEAN_SCORE}, {label}, %", format_percent(mean), mean.value)]
    return [Tile(f"{MEAN_SUCCESS}, {label}, %", format_rate(rate), rate.rate)] if rate else []


def _speed(run: RunContents) -> list[Tile]:
    if run.latency is None:
        return []
    return [Tile("time of one call, p99", f"{run.latency.p99:,.1f} µs", run.latency.p99)]


def _safety(run: RunContents) -> list[Tile]:
    episodes = run.deployments
    if not episodes:
        return []
    solved, ticks = sum(one.success for one in episodes), sum(one.ticks for one in episodes)
    missed = sum(one.deadline_misses for one in episodes) / max(1, ticks)
    return [
        Tile("real-time episodes that succeeded", f"{solved} of {len(episodes)}", solved),
        Tile("deadlines missed", f"{100 * missed:.2f}%", missed),
    ]


def _duration(run: RunContents) -> list[Tile]:
    seconds = dict(run.summary).get("wall_seconds")
    if not isinstance(seconds, int | float):
        return []
    minutes, rest = divmod(round(seconds), 60)
    return [Tile("the whole run took", f"{minutes} min {rest:02d} s" if minutes else f"{rest} s", seconds)]


def tile(key: str, value: Value, own: str = OWN) -> tuple[str, str, Value]:
    """A figure of the summary: its name in words, its value with a unit, and the value itself; `own` is what
    the run's own policy is called.
    """
    if key.endswith(_MEANS) and not key.startswith(_NO_MEANS):
        key = "_mean_".join(key.rsplit("_", 1))
    words = [own if word == OWN else _WORDS.get(word, word) for word in key.replace(".", " ").split("_")]
    name = " ".join(word for word in words if word)
    return name[:1].upper() + name[1:], _worded(key, value), value


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def tenths(share: float) -> str:
    """An end of an interval in percent, "30.1"."""
    return f"{round(100 * share, 1) + 0.0:,.1f}".replace("-", "−")


def breakable(name: str) -> Markup:
    """A task's or metric's name that a narrow column may break after its slashes."""
    return escape(name).replace("/", Markup("/<wbr>"))


def _worded(key: str, value: Value) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if "_us" in key:
        return f"{value:,.1f} µs"
    if key.endswith("_seconds"):
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes} min {seconds:02d} s" if minutes else f"{value:.3g} s"
    # a whole number is a count, even where the key speaks of success
    if isinstance(value, float) and key.endswith("_score"):
        return percent(value)
    if (
        isinstance(value, float)
        and 0 <= value <= 1
        and any(word in key for word in ("success", "fraction", "kept", "share", "rate"))
    ):
        return percent(value)
    return short_number(float(value))


def _headline_order(entry: tuple[str, Value]) -> int:
    return HEADLINE.index(entry[0]) if entry[0] in HEADLINE else len(HEADLINE)


def _sources(evaluations: Sequence[EvaluationResult]) -> list[tuple[str, list[str]]]:
    """What the evaluations were made with; several values where they differ."""
    made = [result.provenance for result in evaluations]
    packages = (
        ", ".join(f"{name} {version}" for name, version in sorted(one.packages.items())) for one in made
    )
    found = [
        ("Commands", (one.command for one in made)),
        ("Commit", (one.commit or "not run from a checkout" for one in made)),
        ("Hardware", (one.hardware for one in made)),
        ("Policy seeds", (str(result.seed) for result in evaluations)),
        ("Evaluated", (one.created for one in made)),
        ("Packages", packages),
    ]
    return [(name, _distinct(values)) for name, values in found] if evaluations else []


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
