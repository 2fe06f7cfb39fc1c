"""The table on the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mtrl.errors import ConfigError
from mtrl.evaluation import EvaluationResult, print_results, success_table
from mtrl.tasks import TaskSet

from .samples import REACH, evaluation, task


def printed(*results: EvaluationResult) -> str:
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    print_results(results, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_rows_hold_the_numbers_of_each_policy() -> None:
    text = printed(evaluation(), evaluation("student", "student", reach=(True,) * 4))
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    # Wilson, 3 of 4: 0.3006 to 0.9544; 4 of 4: 0.5101 to 1
    assert "75.0 [30, 95]" in lines[REACH]
    assert "100.0 [51, 100]" in lines[REACH]
    assert lines[REACH].index("75.0") < lines[REACH].index("100.0")
    assert "test starts" in text
    assert "2-4 episodes" in text


def test_the_mean_is_the_last_row_and_bold() -> None:
    table = success_table([evaluation()])
    assert table.rows[-1].style == "bold"
    assert [row.style for row in table.rows[:-1]] == [None, None]
    assert "62.5 [" in printed(evaluation()).split("mean")[1]


def test_names_are_not_markup() -> None:
    result = evaluation("[red]student", tasks=TaskSet([task("a/[bold]b")]))
    text = printed(result)
    assert "a/[bold]b" in text
    assert "[red]student" in text


def test_what_cannot_be_compared_is_not_put_side_by_side() -> None:
    with pytest.raises(ConfigError, match="cannot be compared"):
        success_table([evaluation(), evaluation("student", reach=(True,))])
    with pytest.raises(ConfigError, match="at least one"):
        success_table([])
