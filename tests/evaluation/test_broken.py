"""Episodes that break cost themselves alone: they are listed, and count for no policy and against none."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mtrl.errors import ConfigError, IntegrityError
from mtrl.evaluation import (
    BrokenEpisode,
    EvaluationConfig,
    EvaluationResult,
    PolicyReference,
    Provenance,
    common_episodes,
    common_runs,
    compare,
    comparison_table,
    evaluate,
    read_result,
    result_from_record,
    result_record,
    results_table,
    run_group,
    verdict,
    write_result,
)
from mtrl.report import write_report
from mtrl.rollout import LocalRollouts, PolicySnapshot, RuntimeConfig
from mtrl.tasks import Option, Split, TaskSet, start_id
from mtrl.training.run_metrics import evaluation_metrics

from ..report.pages import Page
from ..synthetic import counter_suite, counter_task
from .outcomes import outcome_result
from .samples import REACH, SWING, task, task_set

NOWHERE = Provenance(command="none", created="2030-01-01T00:00:00Z", hardware="none")
STARTS = [start_id(Split.TEST, index) for index in range(7)]


def evaluated(
    *options: Mapping[str, Option], copies: int = 3, label: str = "r", **settings: Any
) -> EvaluationResult:
    """Random play on a counter for each set of options."""
    with counter_suite():
        names = ("counter/short", "counter/long")
        tasks = TaskSet([counter_task(n, horizon=5, **o) for n, o in zip(names, options, strict=False)])
        rollouts = LocalRollouts(tasks, RuntimeConfig(attempts=1), lambda fault, last: None)
        config = EvaluationConfig(episodes=len(STARTS), copies=copies, **settings)
        reference = PolicyReference(label=label, kind=label, identity=label, version=0)
        return evaluate(rollouts, tasks, PolicySnapshot("random"), config, reference, NOWHERE)


@pytest.mark.parametrize("copies", [1, 3, 7])
@pytest.mark.parametrize(
    ("option", "cause"),
    [
        ({"nan_at": 3, "nan_field": "reward"}, "not finite: 'reward'"),
        ({"nan_at": 5}, "not finite: 'state'"),
        ({"fail_at": 2}, "RuntimeError: the arm fell off"),
        ({"fail_at": 0}, f"failed at reset of copy {{copy}} to start {STARTS[4]}"),
    ],
)
def test_one_bad_start_costs_its_own_episode(copies: int, option: dict[str, Option], cause: str) -> None:
    healthy = evaluated({}, {}, copies=copies)
    found = evaluated({}, {**option, "fail_start": STARTS[4]}, copies=copies)
    assert [(one.task, one.start) for one in found.broken] == [("counter/long", STARTS[4])]
    assert cause.format(copy=4 % copies) in found.broken[0].cause and "\n" not in found.broken[0].cause
    expected = [e for e in healthy.episodes if (e.task, e.start) != ("counter/long", STARTS[4])]
    assert list(found.episodes) == expected, "all others are what they are without the fault"
    assert [one.episodes for one in found.tasks] == [7, 6]
    assert found.unmeasured == () and found.task_names == healthy.task_names


def test_several_faults_of_one_copy_in_a_row() -> None:
    found = evaluated({"fail_at": 0}, {}, copies=2)
    assert [one.start for one in found.broken] == STARTS
    assert {one.task for one in found.broken} == {"counter/short"}
    assert [one.name for one in found.unmeasured] == ["counter/short"] and found.task_names == (
        "counter/long",
    )
    assert found.mean.score == found.tasks[0].mean_score


def test_strict_refuses_and_nothing_is_no_result() -> None:
    bad: dict[str, Option] = {"fail_at": 2, "fail_start": STARTS[4]}
    with pytest.raises(
        ConfigError, match=rf"(?s)1 of 14 .*strict=true refuses: counter/long start {STARTS[4]}\."
    ):
        evaluated({}, bad, strict=True)
    assert evaluated({}, {}, strict=True).broken == ()
    with pytest.raises(ConfigError, match=r"no episode of any task was played to its end.*the arm fell off"):
        evaluated({"fail_at": 2}, {"fail_at": 1})


def test_a_file_keeps_what_broke(tmp_path: Path) -> None:
    found = evaluated({"fail_at": 0}, {"nan_at": 2, "fail_start": STARTS[1]})
    path = write_result(tmp_path / "a.json", found)
    assert read_result(path) == found == result_from_record(result_record(found))
    record = json.loads(path.read_text())
    assert len(record["broken"]) == 8 and record["unmeasured"][0]["name"] == "counter/short"
    healthy = write_result(tmp_path / "b.json", evaluated({}, {})).read_text()
    assert not {"broken", "unmeasured"} & json.loads(healthy).keys()
    edits = {
        "not in tasks": lambda r: r["broken"][0].update(task="a/b"),
        "starts that are not in episodes too": lambda r: r["broken"].append(
            {**r["broken"][-1], "start": STARTS[2]}
        ),
        "must be a test start": lambda r: r["broken"][0].update(start=STARTS[0] + 1),
        r"broken\[\d\] must come after": lambda r: r["broken"].append(dict(r["broken"][0])),
        "names a task twice": lambda r: r["unmeasured"].append(r["unmeasured"][0]),
        "hash of": lambda r: r["unmeasured"][0]["protocol"].update(horizon_decisions=9),
    }
    for message, edit in edits.items():
        changed = json.loads(path.read_text())
        edit(changed)
        (tmp_path / "c.json").write_text(json.dumps(changed))
        with pytest.raises(IntegrityError, match=message):
            read_result(tmp_path / "c.json")


def test_metrics_while_learning_leave_them_out_and_count_them() -> None:
    found = evaluated({"fail_at": 0}, {"nan_at": 2, "fail_start": STARTS[1]})
    metrics = evaluation_metrics(found)
    assert metrics["evaluation_broken/counter/short"] == 7 and metrics["evaluation_broken/counter/long"] == 1
    assert "evaluation_return/counter/short" not in metrics
    # 1 + 2 + ... + 5
    assert metrics["evaluation_return/counter/long"] == 15.0
    assert not any(key.startswith("evaluation_broken") for key in evaluation_metrics(evaluated({}, {})))


def without(result: EvaluationResult, broken: Mapping[str, Sequence[int]]) -> EvaluationResult:
    """The result as it is where the listed test starts of the tasks broke."""
    found = [
        BrokenEpisode(name, start_id(Split.TEST, index), f"failed at {index}")
        for name, indices in broken.items()
        for index in indices
    ]
    gone = {(one.task, one.start) for one in found}
    kept = tuple(e for e in result.episodes if (e.task, e.start) not in gone)
    bare = dataclasses.replace(result, broken=tuple(found))
    return dataclasses.replace(common_episodes([bare])[0], episodes=kept)


OURS = outcome_result("ours", task_set(), {REACH: [1, 1, 1, 0], SWING: [900.0, 500.0, 600.0]})
THEIRS = outcome_result("theirs", task_set(), {REACH: [0, 1, 0, 0], SWING: [100.0, 400.0, 400.0]})


def test_a_pair_is_dropped_for_both() -> None:
    """Start 0 of reach broke for one, start 0 of swing for the other: neither counts for either policy."""
    found = compare(without(OURS, {REACH: [0]}), without(THEIRS, {SWING: [0]}))
    reach, swing = found.tasks
    assert (reach.starts, reach.gained, reach.lost, swing.starts) == (3, 1, 0, 2)
    assert swing.episode_return.value == (100 + 200) / 2
    assert found.score is not None and found.score.value == pytest.approx((1 / 3 + 0.15) / 2)
    assert [(one.task, one.start) for one in found.broken] == [
        (REACH, start_id(Split.TEST, 0)),
        (SWING, start_id(Split.TEST, 0)),
    ]
    assert "2 starts left out" in verdict(found)
    # the same as a comparison of results that never had these starts
    rest = {REACH: [1, 2, 3], SWING: [1, 2]}
    cut = [
        dataclasses.replace(
            result,
            episodes=tuple(
                e for e in result.episodes if e.start in {start_id(Split.TEST, i) for i in rest[e.task]}
            ),
        )
        for result in (OURS, THEIRS)
    ]
    assert found.tasks == compare(*cut).tasks or [t.score for t in found.tasks] == [
        t.score for t in compare(*cut).tasks
    ]


def test_a_task_without_a_pair_leaves_the_comparison() -> None:
    found = compare(without(OURS, {REACH: [0, 1]}), without(THEIRS, {REACH: [2, 3]}))
    assert [one.name for one in found.tasks] == [SWING]
    assert found.success is None and found.changed is None
    with pytest.raises(ConfigError, match="no start that every compared policy played"):
        compare(without(OURS, {REACH: [0, 1, 2, 3]}), without(THEIRS, {SWING: [0, 1, 2]}))


def test_groups_are_compared_on_what_every_run_played() -> None:
    ours = [dataclasses.replace(OURS, policy=dataclasses.replace(OURS.policy, identity=n)) for n in "ab"]
    theirs = [
        dataclasses.replace(THEIRS, policy=dataclasses.replace(THEIRS.policy, identity=n)) for n in "ab"
    ]
    groups = [run_group("ours", [without(ours[0], {REACH: [0]}), ours[1]]), run_group("theirs", theirs)]
    first, second = common_runs(groups)
    assert first.scores().tolist() == [[2 / 3, 2 / 3], [2 / 3, 2 / 3]]
    assert second.scores()[0, 0] == 1 / 3


def shown(table: object) -> str:
    console = Console(file=io.StringIO(), width=150)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_tables_say_what_broke_and_what_the_means_lack() -> None:
    broken = without(OURS, {REACH: [0], SWING: [0, 1, 2]})
    text = shown(results_table([broken, THEIRS]))
    rows = {" ".join(line.split()[:2]): line for line in text.splitlines() if line.strip()}
    assert "test starts, 3-4 episodes a task" in text
    assert "broken" in rows[f"{SWING} score,"]
    said = " ".join(text.split())
    assert "ours: 4 of 7 episodes broke and count nowhere" in said and "failed at 0" in said
    assert f"means of ours: without {SWING}: every episode broke" in said
    # 2 of 3 starts; the other policy keeps all of its own
    assert "66.7 [" in rows[f"{REACH} success,"] and "25.0 [" in rows[f"{REACH} success,"]
    pair = common_episodes([broken, THEIRS])
    text = shown(comparison_table(pair[1], [compare(*pair)]))
    said = " ".join(text.split())
    assert f"left out for all, since an episode broke: {REACH} start 2; {SWING} start" in said
    assert "+33.3" in said and SWING not in said.split("left out")[0]


def test_the_report_lists_them(tmp_path: Path) -> None:
    broken = without(OURS, {REACH: [0], SWING: [0, 1, 2]})
    for result in (broken, THEIRS):
        write_result(tmp_path / f"run/evaluations/{result.policy.label}.json", result)
    page = Page(write_report(tmp_path / "run"))
    listed = [cells for cells, _ in page.of_table("broken")[1:]]
    assert listed[0] == [REACH, "ours", str(start_id(Split.TEST, 0)), "failed at 0"] and len(listed) == 4
    assert "means of ours: without dmc/cartpole-swingup: every episode broke" in page.texts["success"]
    assert ["ours", "0", "every episode broke"] in [cells[-3:] for cells, _ in page.of_table("results")]


def test_policies_without_a_common_start_still_have_a_page(tmp_path: Path) -> None:
    one, other = without(OURS, {REACH: [0, 1, 2, 3]}), without(THEIRS, {SWING: [0, 1, 2]})
    for result in (one, other):
        write_result(tmp_path / f"run/evaluations/{result.policy.label}.json", result)
    assert "every episode broke" in Page(write_report(tmp_path / "run")).texts["success"]


def test_what_is_left_of_a_set_of_one_task() -> None:
    tasks = TaskSet([task(REACH)])
    found = without(outcome_result("one", tasks, {REACH: [1, 0, 1]}), {REACH: [1]})
    assert found.mean.success_any is not None and found.mean.success_any.rate == 1.0
