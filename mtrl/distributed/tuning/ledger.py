"""What a search has tried, as one file that outlives it: `tune.json` beside the folders of its trials."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtrl.atomic import write_text
from mtrl.errors import ConfigError, ExistsError
from mtrl.reading import MEGABYTE, parse_json, read_bytes, reading

FILE = "tune.json"
STATES = ("running", "finished", "stopped", "failed")
"""Running, or interrupted with the search; whole; ended early by the scheduler; ended by an error."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial: an ordinary run in a folder of its own."""

    number: int
    values: Mapping[str, str]
    """Setting -> what stands behind its equals sign."""
    drawn: Mapping[str, float | str]
    """Setting -> the number or text that the searcher drew."""
    state: str = "running"
    step: int = 0
    """Of the newest value."""
    value: float | None = None
    """Newest value of the metric."""

    @property
    def name(self) -> str:
        """Its folder in the search's."""
        return f"trial-{self.number:04d}"

    @property
    def words(self) -> list[str]:
        """Its values as settings."""
        return [f"{key}={value}" for key, value in self.values.items()]


class Ledger:
    """The trials of one search; every change is on the disk, whole, when its method returns."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        """Begins a search in `folder`, or goes on with the one that is there.

        Raises ExistsError where one is there and `resume` is False, ConfigError where it was begun with
        other settings.
        """
        self.folder, self._settings = folder, dict(settings)
        self.trials: list[TrialRecord] = []
        path = folder / FILE
        if not path.exists():
            if folder.is_dir() and any(item.name[:1] != "." for item in folder.iterdir()):
                raise ExistsError(f"{folder} holds something that is no search; choose another name=NAME")
            return
        if not resume:
            raise ExistsError(
                f"{folder} holds a search; pass --resume auto to go on with it, or choose another name"
            )
        with reading(path, "the trials of a search"):
            found: Any = parse_json(read_bytes(path, 100 * MEGABYTE))
            before, records = dict(found["settings"]), found["trials"]
            self.trials = [TrialRecord(**record) for record in records]
        for key in sorted({*before, *self._settings}):
            if before.get(key) != self._settings.get(key):
                raise ConfigError(
                    f"the search in {folder} was begun with {key} {before.get(key)}, now it is "
                    f"{self._settings.get(key)}; resume it with the same, or choose another name"
                )

    def run(self, number: int) -> Path:
        """The folder of a trial's run."""
        return self.folder / self.trials[number].name

    def begin(self, values: Mapping[str, str], drawn: Mapping[str, float | str]) -> TrialRecord:
        """A new trial."""
        self.trials.append(TrialRecord(len(self.trials), dict(values), dict(drawn)))
        self._write()
        return self.trials[-1]

    def note(self, number: int, **changes: Any) -> None:  # noqa: ANN401 - fields of a record
        """Sets fields of a trial."""
        self.trials[number] = dataclasses.replace(self.trials[number], **changes)
        self._write()

    def best(self, mode: str) -> TrialRecord | None:
        """The trial with the best newest value, among whole ones where there is any; None without a value."""
        known = [trial for trial in self.trials if trial.value is not None]
        whole = [trial for trial in known if trial.state == "finished"] or known
        sign = 1.0 if mode == "max" else -1.0
        return max(whole, key=lambda trial: sign * (trial.value or 0.0), default=None)

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        records = [dataclasses.asdict(trial) for trial in self.trials]
        text = json.dumps({"settings": self._settings, "trials": records}, indent=1)
        write_text(self.folder / FILE, text + "\n", overwrite=True)
