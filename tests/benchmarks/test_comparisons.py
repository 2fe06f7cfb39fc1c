"""What studies compare beyond final scores: processor time, intervals of returns, simple play, cosines."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies import Finished, Study, TaskOutcome, draw
from benchmarks.studies.equal import at_equal_cost, return_interval
from benchmarks.studies.meter import Meter, processor_curve, processor_seconds
from benchmarks.studies.reference_policies import evaluate_references
from mtrl import registry
from mtrl.evaluation import EvaluationConfig, read_result
from mtrl.tasks import Score

PUSH, SWING = "made/push", "made/swing"
SCORES = {PUSH: Score("success"), SWING: Score("return", 0.0, 200.0)}


def write_lines(path: Path, records: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def finished(seed: int, returns: Sequence[float], curve: Sequence[Mapping[str, float]] = ()) -> Finished:
    outcomes = {
        PUSH: TaskOutcome("p", SCORES[PUSH], outcomes="10"),
        SWING: TaskOutcome("s", SCORES[SWING], returns=tuple(returns)),
    }
    return Finished(
        "mtrl train",
        seed,
        1.0,
        "2026-01-01",
        None,
        "a machine",
        {},
        "test",
        {"teacher": outcomes},
        curve=curve,
    )


def moment(step: int, minutes: float, success: float, value: float) -> dict[str, float]:
    judged = {f"evaluation_success/{PUSH}": success, f"evaluation_return/{SWING}": value}
    return {"step": float(step), "minutes": minutes, **judged}


def test_minutes_are_steps_times_the_median_cost_without_evaluations_and_interruptions(
    tmp_path: Path,
) -> None:
    note = write_lines(
        tmp_path / "note",
        [
            {"session": 1, "step": 100, "seconds": 50.0},  # imports and random play
            {"session": 1, "step": 200, "seconds": 62.0},  # 0.12 a step
            {"session": 1, "step": 300, "seconds": 174.0},  # holds an evaluation
            {"session": 1, "step": 400, "seconds": 184.0},  # 0.10
            {"session": 2, "step": 500, "seconds": 9.0},  # resumed
            {"session": 2, "step": 600, "seconds": 23.0},  # 0.14
        ],
    )
    records = [{"step": step, "updates": 1.0} for step in range(100, 700, 100)]
    records[2] |= {"evaluation_return/a": 5.0, "return/a": 4.0}
    minutes, curve = processor_curve(note, records)
    assert minutes == pytest.approx(600 * 0.12 / 60)
    assert curve == [{"step": 300.0, "minutes": 0.6, "evaluation_return/a": 5.0}]
    assert processor_curve(tmp_path / "absent", records) == (0.0, [])


def test_the_meter_notes_the_last_step_when_the_metrics_grow(tmp_path: Path) -> None:
    meter = Meter(tmp_path / "note", tmp_path / "metrics", os.getpid())
    meter.look()
    write_lines(tmp_path / "metrics", [{"step": 10}, {"step": 20}])
    meter.look()
    meter.look()
    (noted,) = [json.loads(line) for line in (tmp_path / "note").read_text().splitlines()]
    assert (noted["session"], noted["step"]) == (os.getpid(), 20)
    now = processor_seconds(os.getpid())
    assert now is not None and 0 < noted["seconds"] <= now + 0.01
    assert processor_seconds(2**30) is None


def test_the_rival_is_taken_where_it_had_cost_as_much() -> None:
    ours = finished(1, [0.0], [moment(50, 1.0, 0.4, 50.0), moment(100, 2.0, 0.8, 100.0)])
    slow = finished(
        1, [0.0], [moment(25, 1.5, 0.1, 10.0), moment(50, 3.0, 0.2, 20.0), moment(100, 6.0, 1, 200)]
    )
    found = at_equal_cost([ours], [slow], SCORES, "minutes")
    assert found is not None
    assert (found[0][0].step, found[1][0].step) == (100, 50)
    assert found[0][0].scores == {PUSH: 0.8, SWING: 0.5} and found[1][0].scores == {PUSH: 0.2, SWING: 0.1}
    # a cheaper rival ends first: ours is taken at what that had cost
    quick = finished(1, [0.0], [moment(100, 1.2, 0.3, 30.0)])
    found = at_equal_cost([ours], [quick], SCORES, "minutes")
    assert found is not None and (found[0][0].step, found[1][0].step) == (50, 100)
    assert at_equal_cost([ours], [finished(2, [0.0], quick.curve)], SCORES, "minutes") is None
    # by steps instead of minutes
    found = at_equal_cost([ours], [slow], SCORES, "step")
    assert found is not None and (found[0][0].step, found[1][0].step) == (100, 100)
    half = finished(1, [0.0], [moment(50, 9.0, 0.3, 30.0)])
    found = at_equal_cost([ours], [half], SCORES, "step")
    assert found is not None and (found[0][0].step, found[1][0].step) == (50, 50)


def test_an_interval_of_returns_covers_starts_and_runs() -> None:
    starts = np.random.default_rng(1).normal(10, 2, 100)
    one = return_interval([starts], np.random.default_rng(0))
    assert one.value == pytest.approx(starts.mean())
    # the normal approximation of a mean of 100: 1.96 standard errors to either side
    assert one.high - one.low == pytest.approx(2 * 1.96 * starts.std() / 10, rel=0.1)
    two = return_interval([starts - 5, starts + 5], np.random.default_rng(0))
    assert two.value == pytest.approx(starts.mean()) and two.low < one.low - 4 and two.high > one.high + 4


def test_a_page_with_reference_policies_minutes_and_cosines() -> None:
    study = Study(
        "small",
        "?",
        (),
        {"base": (), "old": ("a=1",)},
        (1, 2),
        {
            "new": ("base", "teacher"),
            "old": ("old", "teacher"),
            "constant": ("reference-policies", "constant"),
        },
        references=True,
        equal_cost=("new", "old"),
    )
    assert study.runs()[0] == ("reference-policies", 0)
    assert study.command("reference-policies", 0).startswith(
        "python -m benchmarks.studies.reference_policies runtime=local"
    )
    curves = {"base": moment(100, 2.0, 0.8, 100.0), "old": moment(40, 2.5, 0.3, 40.0)}
    runs = {
        study.key(variant, seed): finished(seed, [50.0, 150.0], [curves[variant]])
        for variant in study.variants
        for seed in study.seeds
    }
    runs["base-seed1"] = replace(runs["base-seed1"], cosines={"critic": {f"{PUSH} | {SWING}": -0.25}})
    swing = runs["base-seed1"].policies["teacher"][SWING]
    runs["reference-policies"] = replace(
        runs["base-seed1"], policies={"constant": {SWING: swing}}, cosines={}
    )
    page = draw(study, runs)
    assert f"| {PUSH} | 50.0 (50, 50) | 50.0 (50, 50) |  |" in page
    assert "## Returns" in page and f"| {SWING} | 100.0 [50.0, 150.0] |" in page
    assert f"| {PUSH} | 80.0 (80, 80) | 30.0 (30, 30) |" in page.split("## At equal CPU minutes")[1]
    assert "| CPU minutes | 2, 2 | 2.5, 2.5 |" in page
    assert "| steps | 100, 100 | 40, 40 |" in page.split("## At equal steps")[1].split("## At equal")[0]
    assert f"| {PUSH} and {SWING} | -0.250 |" in page
    assert "| reference-policies | 1.0 | `none` |" in page


def test_every_constant_action_is_evaluated_and_the_best_is_kept(tmp_path: Path) -> None:
    tasks = registry.task_set(["gym/CartPole-v1", "point/obstacle"])
    settings = EvaluationConfig(episodes=3, copies=3)
    (tmp_path / "evaluations").mkdir()
    found = evaluate_references(tasks, settings, tmp_path)
    notes = json.loads((tmp_path / "constants.json").read_text())
    best = int(found["constant_action/gym/CartPole-v1"])
    assert notes[f"gym/CartPole-v1 {best}"] == max(notes.values()) and len(notes) == 2
    constant = read_result(tmp_path / "evaluations" / "constant.json")
    assert [task.name for task in constant.tasks] == ["gym/CartPole-v1"]
    # a pole that is always pushed one way falls within a dozen steps
    assert all(episode.episode_return <= 12 for episode in constant.episodes)
    random = read_result(tmp_path / "evaluations" / "random.json")
    assert [task.name for task in random.tasks] == list(tasks.names)
    assert "constant" not in registry.names("policy")
    before = (tmp_path / "evaluations" / "random.json").read_bytes()
    assert evaluate_references(tasks, settings, tmp_path) == found
    assert (tmp_path / "evaluations" / "random.json").read_bytes() == before
