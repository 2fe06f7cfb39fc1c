"""Options of one task beside those of its suite, and variants: one task used with several options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mtrl import registry
from mtrl.errors import ConfigError, MtrlError, UnknownNameError
from mtrl.evaluation import (
    EvaluationConfig,
    PolicyReference,
    Provenance,
    evaluate,
    read_result,
    write_result,
)
from mtrl.launch.compose import compose
from mtrl.launch.reopen import reopen
from mtrl.pipeline import open_session, task_set_of
from mtrl.rollout import LocalRollouts, PolicySnapshot, RuntimeConfig
from mtrl.rollout.gymnasium_view import GymnasiumView, view_of
from mtrl.structured import plain
from mtrl.tasks import NamedSet, TaskSet

CARTS = ["gym/CartPole-v1", "gym/CartPole-v1@short"]
OPTIONS = {
    "gym": {"action_repeat": 2},
    CARTS[1]: {"horizon": 4},
    "atari": {"observation": "ram", "frame_skip": 16},
    "atari/Boxing@pixels": {"observation": "pixels", "frame_stack": 2},
    "dmc/cartpole-swingup": {"action_repeat": 4},
}
NAMES = [*CARTS, "atari/Boxing", "atari/Boxing@pixels", "dmc/cartpole-swingup", "dmc/reacher-easy"]


def test_options_of_a_task_override_those_of_its_suite() -> None:
    tasks = registry.task_set(NAMES, OPTIONS)
    assert tasks.names == tuple(NAMES)
    assert [task.horizon_decisions for task in tasks][:2] == [250, 2]
    assert [task.observation.buckets for task in tasks][2:4] == [("state",), ("pixels",)]
    assert [task.action_repeat for task in tasks] == [2, 2, 16, 16, 4, 1]
    assert tasks.layout.pixels_shape == (2, 84, 84)
    # a variant is a name alone: its results mean what those of the plain task with these options do
    settings = {"atari": {"observation": "pixels", "frame_stack": 2, "frame_skip": 16}}
    alone = registry.task_set(["atari/Boxing"], settings)[0]
    assert tasks[3].listed == alone and tasks[3].protocol_hash == alone.protocol_hash


@pytest.mark.parametrize("task", ["atari/Boxing@pixels", "atari/Boxing"])
def test_options_of_a_task_in_a_named_set_give_way_to_those_of_the_user(task: str) -> None:
    given = {"atari": {"sticky": 0.0}, task: {"observation": "ram", "sticky": 0.5}}
    registry.register("task_set", "boxers", NamedSet((task,), given))
    try:
        changed = registry.task_set("boxers", {"atari": {"sticky": 1.0}, task: {"observation": "both"}})[0]
    finally:
        registry.unregister("task_set", "boxers")
    assert (changed.option("observation", ""), changed.option("sticky", -1.0)) == ("both", 0.5)


def test_words_and_files_name_a_task_as_the_list_does(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    text = f"names: [{', '.join(NAMES)}]\noptions:\n"
    for place, settings in OPTIONS.items():
        text += f"  {place}: {{{', '.join(f'{key}: {value}' for key, value in settings.items())}}}\n"
    (tmp_path / "tasks" / "several.yaml").write_text(text)
    words = ["tasks.options.atari/Boxing@pixels.frame_stack=3", "tasks.options.gym/CartPole-v1={horizon: 6}"]
    config = compose(["tasks=several", *words], config_dir=tmp_path)
    tasks = task_set_of(config)
    assert tasks.layout.pixels_shape == (3, 84, 84)
    assert [task.horizon_decisions for task in tasks][:2] == [3, 2]
    # a recorded configuration builds the same tasks
    recorded = compose([], command="evaluate", base=plain(config))
    assert task_set_of(recorded).protocol_hash == tasks.protocol_hash


def test_a_run_is_resumed_with_the_options_that_it_began_with(tmp_path: Path) -> None:
    words = ["tasks.names=[gym/CartPole-v1,gym/CartPole-v1@short]", f"output={tmp_path}", "name=run"]
    options = f"tasks.options.{CARTS[1]}.horizon="
    console = Console(quiet=True)
    for resume in (False, True):
        config = compose([*words, f"{options}4"])
        with open_session(config, overwrite=False, resume=resume, console=console) as session:
            assert [task.horizon_decisions for task in session.tasks] == [500, 4]
    with reopen(tmp_path / "run", [], "evaluate", console) as session:
        assert session.tasks.names == tuple(CARTS) and session.tasks[1].horizon_decisions == 4
    with (
        pytest.raises(ConfigError, match=r"CartPole-v1@short"),
        open_session(compose([*words, f"{options}5"]), overwrite=False, resume=True, console=console),
    ):
        pass


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("gym/my.module:Cart-v0.horizon=5", ("gym/my.module:Cart-v0", {"horizon": 5})),
        ("gym/ALE/Pong-v5.horizon=5", ("gym/ALE/Pong-v5", {"horizon": 5})),
        ("gym/my.module:Cart-v0={horizon: 5}", ("gym/my.module:Cart-v0", {"horizon": 5})),
    ],
)
def test_the_name_of_a_task_may_hold_dots(key: str, parts: tuple[str, dict[str, int]]) -> None:
    assert compose([f"tasks.options.{key}"]).tasks.options == dict([parts])


@pytest.mark.parametrize(
    ("names", "options", "error", "message"),
    [
        (
            ["atari/Pong"],
            {"atari/Pong": {"sticky": 2.0}},
            ConfigError,
            "options.atari/Pong.sticky=2.0 is out",
        ),
        (
            ["atari/Pong@a"],
            {"atari/Pong@b": {"sticky": 0.0}},
            UnknownNameError,
            "did you mean 'atari/Pong@a'",
        ),
        (["atari/Pong"], {"atari/Pnog": {"sticky": 0.0}}, UnknownNameError, "did you mean 'atari/Pong'"),
        (["atari/Pong"], {"atri/Pong": {"sticky": 0.0}}, UnknownNameError, "did you mean 'atari'"),
        (["atari/Pong", "atari/Pong"], {}, ConfigError, "repeated: atari/Pong.*atari/Pong@pixels"),
        (["atari/Pong", "atari/Pong@b"], {}, ConfigError, "are the same task with the same options"),
        (["atari/Pong@a b"], {}, ConfigError, "variant of a task's name is one word.*got 'atari/Pong@a b'"),
        (["atari/Pong@"], {}, ConfigError, "variant of a task's name is one word"),
    ],
)
def test_options_and_variants_that_cannot_be_are_refused(
    names: list[str], options: dict[str, dict[str, float]], error: type[MtrlError], message: str
) -> None:
    with pytest.raises(error, match=message):
        registry.task_set(names, options)


def test_options_of_tasks_that_were_left_out_of_a_longer_list_do_no_harm() -> None:
    for name in ("atari/Freeway", "atari/Boxing"):
        assert registry.task_set([name], OPTIONS)[0].observation.buckets == ("state",)


@pytest.mark.parametrize("workers", [0, 1])
def test_variants_are_tasks_of_their_own_in_results(workers: int, tmp_path: Path) -> None:
    tasks = registry.task_set([*CARTS, "atari/Boxing@pixels"], {**OPTIONS, CARTS[0]: {"horizon": 2}})
    tasks = TaskSet([*tasks][:2])
    rollouts = LocalRollouts(tasks, RuntimeConfig(workers=workers))
    try:
        result = evaluate(
            rollouts,
            tasks,
            PolicySnapshot("random"),
            EvaluationConfig(episodes=2, copies=2),
            PolicyReference("random", kind="random", identity="random", version=0),
            Provenance.collect(),
        )
    finally:
        rollouts.close()
    assert [(task.name, task.episodes) for task in result.tasks] == [(name, 2) for name in CARTS]
    assert {episode.task: episode.length for episode in result.episodes} == {CARTS[0]: 1, CARTS[1]: 2}
    write_result(tmp_path / "r.json", result, overwrite=False)
    assert read_result(tmp_path / "r.json").task_names == tasks.names


def test_a_variant_begins_where_its_task_does() -> None:
    for name, variant in (CARTS, ["dmc/reacher-easy", "dmc/reacher-easy@slow"]):
        suite = name.partition("/")[0]
        plain, other = registry.task_set([name, variant], {variant: {"action_repeat": 2}, suite: {}})
        views = [GymnasiumView(plain), view_of(other.name, dict(other.options), False, other.protocol_hash)]
        first, second = (view.reset(seed=3)[0] for view in views)
        assert np.array_equal(first, second)
        for view in views:
            view.close()
