"""Pictures of an agent's metrics in the report: the agent declares them, its run keeps `panels.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mtrl.atomic import write_text
from mtrl.errors import ConfigError
from mtrl.reading import JSON_BYTES, parse_json, read_bytes, reading
from mtrl.structured import Checked, build, plain

PANELS = "panels.json"
"""A list of panels as JSON objects, beside the `metrics.jsonl` whose metrics they show."""

KINDS = ("lines", "heat", "profile")


@dataclass(frozen=True)
class Panel(Checked, place="panel"):
    """One picture of metrics that an agent logs."""

    kind: Annotated[str, KINDS]
    """"lines": over the steps, one for each task. "heat": the last record, a row for each task and a column
    for each {layer}. "profile": the last record over {layer}, a line for each task."""
    title: str
    meaning: str
    """How to read it, in a few words."""
    metrics: tuple[str, ...]
    """Names among the agent's `Metrics`, with their "{task}" and "{layer}"."""
    unit_range: bool = False
    """Whether the values are shares: drawn from 0 to 1, and in a heat map printed in percent."""
    level: float | None = None
    """A value that lines are compared with, drawn as a dashed line."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.metrics:
            if max(name.count(part) for part in ("{task}", "{layer}")) > 1:
                raise ConfigError(f"panel.metrics: a name holds {{task}} and {{layer}} once; got {name!r}")
        of_tasks = [name for name in self.metrics if "{task}" in name]
        if self.kind != "lines" and len(of_tasks) > 1:
            raise ConfigError(
                f"panel.metrics: a {self.kind} panel shows one metric of each task; got "
                f"{', '.join(of_tasks)}: make a panel of each"
            )


def metric_pattern(name: str) -> re.Pattern[str]:
    """Matches the logged names that a name in `Metrics` stands for, with the groups `task` and `layer`."""
    found = re.escape(name).replace(r"\{task\}", r"(?P<task>[^/]+/.+)")
    return re.compile(found.replace(r"\{layer\}", r"(?P<layer>\d{1,9})"))


def write_panels(folder: Path, panels: Sequence[Panel]) -> None:
    """Writes `panels.json`, replacing an older one."""
    text = json.dumps([plain(panel) for panel in panels], indent=1) + "\n"
    write_text(folder / PANELS, text, overwrite=True)


def read_panels(folder: Path) -> tuple[Panel, ...]:
    """The panels of the metrics in `folder`, none where it names none; IntegrityError for a broken file."""
    path = folder / PANELS
    if not path.is_file():
        return ()
    with reading(path, "a list with one object for each panel"):
        listed = parse_json(read_bytes(path, JSON_BYTES))
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise ValueError("expected a list of objects")
        return tuple(build(Panel, one, "panel") for one in listed if isinstance(one, dict))
