"""The table on the terminal."""

from __future__ import annotations

import io
import re
from collections import Counter

import pytest
from rich.console import Console

from mtrl.errors import ConfigError
from mtrl.evaluation import (
    EvaluationResult,
    compare,
    comparison_table,
    print_results,
    results_table,
)
from mtrl.evaluation.comparison_tables import verdict
from mtrl.tasks import Score, TaskSet

from .outcomes import outcome_result
from .samples import REACH, SWING, evaluation, task


def solved() -> TaskSet:
    """The two tasks, both measured by success."""
    return TaskSet([task(REACH), task(SWING)])


def printed(*results: EvaluationResult, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_results(results, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_rows_hold_the_numbers_of_each_policy() -> None:
    student = evaluation("student", "student", reach=(True,) * 4, tasks=solved())
    text = printed(evaluation(tasks=solved()), student)
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    # Wilson, 3 of 4: 0.3006 to 0.9544; 4 of 4: 0.5101 to 1
    assert "75.0 [30, 95]" in lines[REACH]
    assert "100.0 [51, 100]" in lines[REACH]
    assert lines[REACH].index("75.0") < lines[REACH].index("100.0")
    assert "test starts" in text
    assert "2-4 episodes" in text


def test_the_mean_is_the_last_row_and_bold() -> None:
    table = results_table([evaluation(tasks=solved())])
    assert table.rows[-1].style == "bold"
    assert [row.style for row in table.rows[:-1]] == [None, None]
    assert "62.5 [" in printed(evaluation(tasks=solved())).split("mean")[1]


def test_names_are_not_markup() -> None:
    result = evaluation("[red]student", tasks=TaskSet([task("a/[bold]b")]))
    text = printed(result)
    assert "a/[bold]b" in text
    assert "[red]student" in text


def test_what_cannot_be_compared_is_not_put_side_by_side() -> None:
    with pytest.raises(ConfigError, match="cannot be compared"):
        results_table([evaluation(), evaluation("student", reach=(True,))])
    with pytest.raises(ConfigError, match="at least one"):
        results_table([])


def test_a_mixed_table_says_what_each_row_measures() -> None:
    mixed = TaskSet(
        [task(REACH), task(SWING, Score("return", 0.0, 1000.0)), task("gym/Any", Score("return"))]
    )
    outcomes = {REACH: [1, 1, 1, 0], SWING: [400, 500, 450, 450], "gym/Any": [2, 2, 2, 2]}
    rows = [line for line in printed(outcome_result("teacher", mixed, outcomes)).splitlines() if line.strip()]
    assert rows[0].startswith("Results (test starts, 4 episodes a task)")
    assert [line.split()[0] for line in rows[3:9]] == [REACH, SWING, "return", "gym/Any", "mean", "mean"]
    assert "success, %" in rows[3] and "75.0 [30, 95]" in rows[3], "Wilson, 3 of 4"
    assert "score, %" in rows[4] and "45.0 [" in rows[4]
    assert "450.0 [" in rows[5]
    assert "return" in rows[6] and "2 [2, 2]" in rows[6], "no range: the return alone"
    assert "mean success" in rows[7] and "success, %" in rows[7] and "75.0 [30, 95]" in rows[7]
    # (0.75 + 0.45) / 2: the task without a range stays out
    assert "mean score" in rows[8] and "score, %" in rows[8] and "60.0 [" in rows[8]
    said = " ".join(" ".join(rows[9:]).split())
    assert "mean success: of the 1 of 3 tasks that are measured by success" in said
    assert "mean score: without gym/Any: a return without a range" in said


def test_a_set_without_normalised_scores_has_no_mean() -> None:
    alone = TaskSet([task("gym/Any", Score("return"))])
    text = printed(outcome_result("teacher", alone, {"gym/Any": [1.0, 2.0]}))
    assert "1.5 [1, 2]" in text
    assert not any(line.split()[:1] == ["mean"] for line in text.splitlines())


def test_intervals_of_scores_repeat_themselves_and_lie_around_the_mean() -> None:
    mixed = TaskSet([task(SWING, Score("return", 0.0, 1000.0))])
    result = outcome_result("teacher", mixed, {SWING: [float(value) for value in range(0, 1000, 50)]})
    first, again = (printed(result) for _ in range(2))
    assert first == again
    # mean 475, standard error 288.3 / sqrt(20) = 64.5: 47.5 +- 12.6 percent, bootstrap noise aside
    low, high = (int(x) for x in first.split("47.5 [")[1].split("]")[0].split(", "))
    assert abs(low - 34.9) < 2 and abs(high - 60.1) < 2
    assert results_table([result]).row_count == 3


def test_a_narrow_terminal_loses_no_number() -> None:
    mixed = TaskSet(
        [task(REACH), task(SWING, Score("return", 0.0, 1000.0)), task("gym/Any", Score("return"))]
    )
    outcomes = {REACH: [1, 1, 1, 0], SWING: [400, 500, 450, 450], "gym/Any": [-350, -900, -20, -30]}
    results = [outcome_result(label, mixed, outcomes) for label in ("teacher", "bc", "student")]
    compared = comparison_table(results[0], [compare(other, results[0]) for other in results[1:]])
    for width in (200, 80, 60):
        narrow = printed(*results, width=width)
        console = Console(file=io.StringIO(), width=width)
        console.print(compared)
        assert isinstance(console.file, io.StringIO)
        text = narrow + console.file.getvalue()
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width
        assert text.count("reach-v3") == text.count("cartpole-swingup") >= 2, "names are whole"
        assert ("metaworld/reach-v3" in text) == (width > 80)
    assert (
        cells(printed(*results)) == cells(printed(*results, width=80)) == cells(printed(*results, width=60))
    )


def test_three_policies_of_long_names_stand_in_one_block_of_80_columns() -> None:
    tasks = TaskSet([task(f"metaworld/{name}") for name in ("reach-v3", "button-press-topdown-wall-v3")])
    always = {one.name: [1] * 50 for one in tasks}
    text = printed(
        *(outcome_result(label, tasks, always) for label in ("teacher", "bc", "student")), width=80
    )
    line = "button-press-topdown-wall-v3" + 3 * "  100.0 [93, 100]"
    assert [row.rstrip() for row in text.splitlines() if "wall-v3" in row] == [line]


def test_what_fits_no_block_continues_below_whole() -> None:
    tasks = TaskSet([task(f"metaworld/{name}") for name in ("reach-v3", "button-press-topdown-wall-v3")])
    always = {one.name: [1] * 50 for one in tasks}
    labels = ("random", "constant", "teacher", "student", "behaviour cloning")
    text = printed(*(outcome_result(label, tasks, always) for label in labels), width=80)
    rows = [row.rstrip() for row in text.splitlines()]
    heads = [row for row in rows if row.startswith("task ")]
    assert [row.split(maxsplit=1)[1] for row in heads] == [
        "random         constant          teacher",
        "student  behaviour cloning",
    ]
    assert text.count("Success, %") == text.count("in brackets") == 1
    assert cells(text) == Counter(["100.0 [93, 100]"] * 10 + ["100.0 [96, 100]"] * 5)
    assert sum("button-press-topdown-wall-v3  " in row for row in rows) == 2, "each block has whole names"


def cells(text: str) -> Counter[str]:
    """Figures with their intervals, each whole on one line."""
    return Counter(re.findall(r"-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]", text))


@pytest.mark.parametrize("policies", [3, 4])
def test_no_column_is_cut_at_the_edge_of_the_terminal(policies: int) -> None:
    mixed = TaskSet([task("gym/CartPole-v1@short", Score("return", 0.0, 500.0)), task(REACH)])
    outcomes = {"gym/CartPole-v1@short": [-500, -499.5, -500], REACH: [1, 0, 1]}
    results = [outcome_result(f"policy{k}", mixed, outcomes) for k in range(policies)]
    whole = numbers(printed(*results, width=300))
    for width in (80, 94):
        text = printed(*results, width=width)
        assert max(map(len, text.splitlines())) <= width
        assert numbers(text) == whole, width


def numbers(text: str) -> Counter[str]:
    """The words that are numbers, whatever line they stand on."""
    return Counter(re.findall(r"(?<![\w/-])-?\d+(?:\.\d+)?(?![\w%])", text))


def test_one_episode_shows_no_certainty() -> None:
    mixed = TaskSet([task(REACH), task(SWING, Score("return", 0.0, 100.0)), task("gym/Any", Score("return"))])
    one = {REACH: [1], SWING: [45], "gym/Any": [2.125]}
    teacher = outcome_result("teacher", mixed, one)
    student = outcome_result("student", mixed, {**one, SWING: [55]})
    text = printed(teacher)
    assert "45.0 [-]" in text and "2.12 [-]" in text and "72.5 [-]" in text
    assert "100.0 [21, 100]" in text, "Wilson has an interval for one episode"
    assert "one episode has no bootstrap interval" in text
    found = compare(student, teacher)
    console = Console(file=io.StringIO(), width=120)
    console.print(comparison_table(teacher, [found]))
    assert isinstance(console.file, io.StringIO)
    assert "+10.0 [-]" in console.file.getvalue() and "+5.0 [-]" in console.file.getvalue()
    assert "a single start for a task gives no interval: no difference is shown" in verdict(found)


def test_of_many_tasks_the_worst_is_named() -> None:
    tasks = TaskSet([task(f"metaworld/task-{k}-v3") for k in range(10)])
    outcomes = {one.name: [1.0, 1.0, 0.0 if k == 7 else 1.0, 1.0] for k, one in enumerate(tasks)}
    text = " ".join(printed(outcome_result("teacher", tasks, outcomes)).split())
    assert "least of teacher: metaworld/task-7-v3, 75.0" in text
    few = TaskSet(list(tasks)[:9])
    assert "least of" not in printed(outcome_result("teacher", few, outcomes))
