"""Results of policies side by side: printed as a table, written as CSV, taken as a data frame."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from mtrl.atomic import write_text
from mtrl.errors import ConfigError, UnknownNameError
from mtrl.evaluation import EvaluationResult, print_results

if TYPE_CHECKING:
    from pandas import DataFrame

TABLE_WIDTH = 100
"""Characters of a printed table, whose terminal is not known."""

Per = Literal["episode", "task"]
"""What a row is."""

Cell = str | int | float | bool | None
Row = dict[str, Cell]


@dataclass(frozen=True)
class Results:
    """Results of `evaluate`, one per policy on equal starts; prints as a table with intervals."""

    results: tuple[EvaluationResult, ...]

    def __getitem__(self, label: str) -> EvaluationResult:
        for result in self.results:
            if result.policy.label == label:
                return result
        raise UnknownNameError("policy", label, [result.policy.label for result in self.results])

    def __iter__(self) -> Iterator[EvaluationResult]:
        return iter(self.results)

    def __str__(self) -> str:
        text = io.StringIO()
        print_results(self.results, Console(emoji=False, file=text, width=TABLE_WIDTH))
        return "\n".join(line.rstrip() for line in text.getvalue().strip("\n").splitlines())

    __repr__ = __str__

    def to_dataframe(self, per: Per = "episode") -> DataFrame:
        """The rows of `rows` as a pandas.DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.rows(per))

    def to_csv(self, path: str | Path, per: Per = "episode", *, overwrite: bool = False) -> Path:
        """Writes the rows of `rows` under one line of their names, whole or not at all.

        Raises ExistsError where the file is there and `overwrite` is False.
        """
        text, rows = io.StringIO(), self.rows(per)
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return write_text(Path(path), text.getvalue(), overwrite=overwrite)

    def rows(self, per: Per = "episode") -> list[Row]:
        """One flat row for every episode that was played to its end, or for every task, of every policy.

        Of an episode: policy, kind, version, task, split, start, return, score (None where the task's return
        has no range), success, success_end, length, terminated, truncated, first_success. Of a task: policy,
        kind, version, task, split, episodes, success with its interval success_low to success_high,
        success_end, return, score, length, first_success, means all.
        """
        if per not in ("episode", "task"):
            raise ConfigError(f"a row is of an 'episode' or a 'task'; got {per!r}")
        return (_episodes if per == "episode" else _tasks)(self.results)


def _policy(result: EvaluationResult) -> Row:
    return {"policy": result.policy.label, "kind": result.policy.kind, "version": result.policy.version}


def _episodes(results: Sequence[EvaluationResult]) -> list[Row]:
    return [
        {
            **_policy(result),
            "task": task.name,
            "split": result.split.name.lower(),
            "start": episode.start,
            "return": episode.episode_return,
            "score": score if task.is_normalised else None,
            "success": episode.success_any,
            "success_end": episode.success_end,
            "length": episode.length,
            "terminated": episode.terminated,
            "truncated": episode.truncated,
            "first_success": episode.first_success,
        }
        for result in results
        for task in result.tasks
        for episode, score in zip(
            result.task_episodes(task.name), result.normalised_scores(task.name), strict=True
        )
    ]


def _tasks(results: Sequence[EvaluationResult]) -> list[Row]:
    return [
        {
            **_policy(result),
            "task": task.name,
            "split": result.split.name.lower(),
            "episodes": task.episodes,
            "success": task.success_any.rate,
            "success_low": task.success_any.low,
            "success_high": task.success_any.high,
            "success_end": task.success_end.rate,
            "return": task.mean_return,
            "score": task.mean_score if task.is_normalised else None,
            "length": task.mean_length,
            "first_success": task.mean_first_success,
        }
        for result in results
        for task in result.tasks
    ]
