"""What a run has learned, task by task: before, while learning, and at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from mtrl.evaluation.comparison import are_comparable
from mtrl.evaluation.formats import format_percent, format_plain
from mtrl.evaluation.results import EvaluationResult
from mtrl.evaluation.statistics import Estimate
from mtrl.evaluation.table import add_figures, add_measures, add_names, empty_table, return_means
from mtrl.evaluation.task_names import TaskNames

from .curves import Curve, read_curves
from .learning_figures import MANY_TASKS, Levels
from .scale import short_number
from .task_curves import TaskCurves, grouped

FIRST = "first record"
"""What stands for random play where that was not evaluated: the first record of learning."""


@dataclass(frozen=True)
class LearntRow:
    """One task by one measure."""

    task: str
    measured: str
    """"return" or "success" (a share)."""
    before: Estimate | None
    """Random play evaluated on the same starts, or the first record, which has no interval."""
    last: float | None
    after: Estimate | None
    """The policy at the end, evaluated."""

    @property
    def learned(self) -> bool:
        """Whether the evaluation lies above what was before, intervals and all; one episode shows nothing."""
        if self.before is None or self.after is None or not self.after.has_interval:
            return False
        return self.after.low > self.before.high

    def shown(self, estimate: Estimate | None) -> str:
        """An estimate as the row's column prints it; an interval only where there is one."""
        if estimate is None:
            return "-"
        text = format_percent(estimate) if self.measured == "success" else format_plain(estimate)
        return text if estimate.has_interval else text.partition(" ")[0]

    @property
    def shown_last(self) -> str:
        """The last record as its column prints it."""
        return "-" if self.last is None else self.shown(_point(self.last))


@dataclass(frozen=True)
class Learnt:
    """The tasks of a run that learned while it collected."""

    before: str
    """"random" where random play was evaluated, otherwise FIRST."""
    after: str
    """Label of the evaluated policy; "" before any evaluation."""
    first_step: float
    last_step: float
    rows: tuple[LearntRow, ...]
    """A task measured by success has two, its success and its return; any other its return."""
    levels: dict[str, Levels]
    """Task -> what its returns are compared with."""
    by_success: tuple[str, ...]
    """Tasks whose success is measured at all."""

    @property
    def verdict(self) -> str:
        """What was learned, in plain words."""
        before = "random play" if self.before != FIRST else f"the first record (step {self.first_step:,.0f})"
        evaluated = {row.task: False for row in self.rows if row.before is not None and row.after is not None}
        for row in self.rows:
            if row.task in evaluated:
                evaluated[row.task] |= row.learned
        if not evaluated:
            return f"Learning for {self.last_step:,.0f} steps; not evaluated yet."
        short = [name for name, learned in evaluated.items() if not learned]
        count = len(evaluated)
        said = f"After {self.last_step:,.0f} steps the policy is better than {before} on "
        if not short:
            return f"{said}{'all ' if count > 1 else ''}{count} task{'s' * (count > 1)}."
        listed = ", ".join(short[:3]) + (f" and {len(short) - 3} more" if len(short) > 3 else "")
        return f"{said}{count - len(short)} of {count} tasks; not on {listed}."


def learnt(tasks: Sequence[TaskCurves], evaluations: Sequence[EvaluationResult]) -> Learnt | None:
    """From the panels of a run's metrics and its evaluations, oldest first; None without a return."""
    if not any(task.returns is not None and task.returns.values for task in tasks):
        return None
    trained = _newest(evaluations, [r.policy for r in evaluations if r.policy.kind not in _SCRIPTED])
    alike = [r for r in evaluations if trained is None or are_comparable(trained, r)]
    random = _newest(alike, [r.policy for r in alike if r.policy.kind == "random"])
    constant = _newest(alike, [r.policy for r in alike if r.policy.kind == "constant"])
    means = [None if r is None else return_means(r) for r in (random, constant, trained)]
    rows: list[LearntRow] = []
    levels, by_success = {}, []
    known = next((r for r in (trained, random) if r is not None), None)
    for task in tasks:
        levels[task.name] = Levels(*(None if m is None else m.tasks.get(task.name) for m in means))
        summary = None if known is None else known.task(task.name)
        if task.ever_solved if summary is None else summary.score.kind == "success":
            by_success.append(task.name)
            before, after = _success(random, task.name), _success(trained, task.name)
            rows.append(_row(task.name, "success", task.success, before, after, random is not None))
        level = levels[task.name]
        rows.append(_row(task.name, "return", task.returns, level.random, level.trained, random is not None))
    steps = [task.returns.steps for task in tasks if task.returns is not None and task.returns.steps]
    return Learnt(
        before=FIRST if random is None else "random",
        after="" if trained is None else trained.policy.shown,
        first_step=min(found[0] for found in steps),
        last_step=max(found[-1] for found in steps),
        rows=tuple(rows),
        levels=levels,
        by_success=tuple(by_success),
    )


def learning_table(run: Path, evaluations: Sequence[EvaluationResult]) -> Table | None:
    """Per task before, while learning and at the end, for the terminal: success in percent, and the return.

    `run` is the folder of `metrics.jsonl`; `evaluations` come oldest first. None for a run that logged no
    return of a task, such as one that learned from demonstrations.

    Raises:
        OSError: the file cannot be read.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        return None
    order = evaluations[-1].task_names if evaluations else ()
    found = learnt(grouped(read_curves(path, path.name), order).tasks, evaluations)
    if found is None:
        return None
    table = empty_table(f"Learned in {found.last_step:,.0f} steps", _caption(found))
    names = TaskNames(dict.fromkeys(row.task for row in found.rows))
    add_names(table, names)
    add_measures(table)
    for label in (found.before, "last", found.after or "evaluated"):
        add_figures(table, label)
    table.add_column("", no_wrap=True)
    few = len(found.levels) <= MANY_TASKS
    # of many tasks, what each is measured by
    rows = [r for i, r in enumerate(found.rows) if few or i == 0 or found.rows[i - 1].task != r.task]
    for index, row in enumerate(rows):
        ends = index + 1 == len(rows) or rows[index + 1].task != row.task
        again = index > 0 and rows[index - 1].task == row.task
        measured = "success, %" if row.measured == "success" else "return"
        cells = (row.shown(row.before), row.shown_last, row.shown(row.after), "^" if row.learned else "")
        name = Text("") if again else names.cell(row.task)
        table.add_row(name, measured, *map(Text, cells), end_section=ends)
    return table


_SCRIPTED = ("random", "constant", "expert")


def _caption(found: Learnt) -> str:
    steps = f"while learning, step {short_number(found.first_step)}"
    first = "on the same starts" if found.before != FIRST else steps
    return (
        f"{found.before}: {first}; last: while learning, exploration included\n"
        "[]: intervals of the evaluation; ^: above what was before, intervals and all"
    )


def _newest(evaluations: Sequence[EvaluationResult], policies: Sequence[object]) -> EvaluationResult | None:
    """The last result of the first policy's label: of a teacher rather than of its student."""
    chosen = [result for result in evaluations if any(result.policy is policy for policy in policies)]
    return next((r for r in reversed(chosen) if r.policy.shown == chosen[0].policy.shown), None)


def _success(result: EvaluationResult | None, name: str) -> Estimate | None:
    task = None if result is None else result.task(name)
    return None if task is None else task.success_any.estimate


def _row(
    task: str,
    measured: str,
    curve: Curve | None,
    before: Estimate | None,
    after: Estimate | None,
    random: bool,
) -> LearntRow:
    known = curve is not None and bool(curve.values)
    if before is None and not random and curve is not None and known:
        before = _point(curve.values[0])
    return LearntRow(task, measured, before, curve.values[-1] if curve is not None and known else None, after)


def _point(value: float) -> Estimate:
    return Estimate(value, value, value, has_interval=False)
