"""The short road: `import mtrl` stays light, and its few functions make, act, evaluate and train."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import mtrl
from mtrl.agents.sac import NetworkConfig
from mtrl.errors import ConfigError, MtrlError, UnknownNameError, UnsupportedError
from mtrl.nn import TorsoConfig
from mtrl.rollout import PolicySnapshot
from mtrl.tasks import TaskSet


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd(), timeout=150
    )
    return done.stdout


def test_importing_mtrl_imports_next_to_nothing() -> None:
    heavy = "{'numpy', 'torch', 'gymnasium', 'rich', 'mujoco', 'ray', 'wandb'}"
    code = f"import sys, mtrl; dir(mtrl); print(sorted({heavy} & set(sys.modules)))"
    assert run(code).strip() == "[]"


def test_making_tasks_imports_no_simulator() -> None:
    heavy = "{'mujoco', 'metaworld', 'dm_control', 'ale_py', 'ray', 'wandb'}"
    code = f"import sys, mtrl; mtrl.make_tasks('mixed'); print(sorted({heavy} & set(sys.modules)))"
    assert run(code).strip() == "[]"


def test_every_name_of_the_module_is_there_and_others_are_not() -> None:
    for name in mtrl.__all__:
        assert callable(getattr(mtrl, name)) and name in dir(mtrl)
    with pytest.raises(AttributeError, match="has no attribute 'evalute'"):
        mtrl.evalute  # noqa: B018


def test_tasks_come_from_a_name_a_list_or_are_kept() -> None:
    tasks = mtrl.make_tasks("point/obstacle")
    assert isinstance(tasks, TaskSet) and tasks.names == ("point/obstacle",)
    assert mtrl.make_tasks(tasks) is tasks
    assert len(mtrl.make_tasks(["point/obstacle", "metaworld/reach-v3"])) == 2
    with pytest.raises(UnknownNameError, match="did you mean 'point/obstacle'"):
        mtrl.make_tasks("point/obstacel")


def test_a_task_is_a_gymnasium_environment() -> None:
    environment = mtrl.make("point/obstacle")
    first, _ = environment.reset(seed=3)
    again, _ = environment.reset(seed=3)
    np.testing.assert_array_equal(first, again)
    check_env(environment, skip_render_check=True)
    environment.close()


def test_policies_are_judged_side_by_side_on_equal_starts() -> None:
    results = mtrl.evaluate({"best": "expert", "worst": "random"}, "point/obstacle", episodes=6, copies=3)
    best, worst = results["best"], results["worst"]
    assert [result.policy.label for result in results] == ["best", "worst"]
    assert [e.start for e in best.episodes] == [e.start for e in worst.episodes]
    assert best.mean.success_any.rate == 1.0 > worst.mean.success_any.rate
    table = str(results)
    assert "best" in table and "point/obstacle" in table and "100.0 [61, 100]" in table
    assert repr(results) == table
    with pytest.raises(UnknownNameError, match="did you mean 'worst'"):
        results["wurst"]


def test_an_evaluation_is_a_function_of_its_arguments() -> None:
    first, second = (mtrl.evaluate("random", "point/obstacle", episodes=4)["random"] for _ in range(2))
    assert first.episodes == second.episodes
    other = mtrl.evaluate("random", "point/obstacle", episodes=4, split="validation", seed=1)["random"]
    assert not {e.start for e in other.episodes} & {e.start for e in first.episodes}


def test_an_agent_is_trained_and_judged() -> None:
    from mtrl.nn import ChunkShape

    tasks = mtrl.make_tasks("point/obstacle")
    data = mtrl.demonstrate(tasks, episodes=2)
    agent = mtrl.train(
        "diffusion", tasks, data, updates=3, network=ChunkShape(width=16, blocks=1), batch_size=8
    )
    assert agent.updates == 3
    # a setting of the agent stays one, whatever others call theirs
    with pytest.raises(MtrlError, match="warmup"):
        mtrl.train("diffusion", tasks, data, updates=1, warmup=-1)
    result = mtrl.evaluate(agent, tasks, episodes=2)["diffusion"]
    assert result.policy.version == 3 and len(result.episodes) == 2


def test_an_agent_learns_from_its_own_play() -> None:
    network = NetworkConfig(torso=TorsoConfig(width=8))
    tasks = mtrl.make_tasks(["gym/CartPole-v1", "point/obstacle"])
    agent = mtrl.train("sac", tasks, steps=400, random_steps=200, network=network, batch_size=8)
    # one update in five steps after the warm-up
    assert agent.updates == 40
    assert mtrl.evaluate(agent, tasks, episodes=1)["sac"].policy.version == 40
    with pytest.raises(ConfigError, match="Play it on all the tasks"):
        mtrl.evaluate(agent, "gym/CartPole-v1", episodes=1)
    data = mtrl.demonstrate("point/obstacle", episodes=1)
    mixed = {"demonstrations": 0.5}
    shown = mtrl.train(
        "sac", "point/obstacle", data, steps=60, random_steps=40, network=network, batch_size=8, replay=mixed
    )
    assert shown.updates == 4
    with pytest.raises(ConfigError, match=r"learned nothing in 60 steps: no task came to a batch"):
        mtrl.train("sac", "point/obstacle", steps=60, random_steps=60)
    with pytest.raises(ConfigError, match=r"learned nothing.*random_steps=60 are too few"):
        mtrl.train("sac", "point/obstacle", steps=60, random_steps=60, batch_size=8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mtrl.evaluate("expret", "point/obstacle"), ConfigError, "neither 'expert' nor 'random'"),
        (lambda: mtrl.evaluate({}, "point/obstacle"), ConfigError, "no policy to evaluate"),
        (lambda: mtrl.demonstrate("gym/CartPole-v1", episodes=1), MtrlError, "CartPole"),
        (
            lambda: mtrl.train("diffusion", "point/obstacle", {}, updates=1, bach_size=2),
            UnknownNameError,
            "did you mean 'agent.batch_size'",
        ),
        (
            lambda: mtrl.train("diffusion", "point/obstacle", {}, updates=1, batch_size="a"),
            ConfigError,
            "a whole number",
        ),
        (
            lambda: mtrl.train("diffusion", "point/obstacle", {}, updates="a"),
            ConfigError,
            "updates is a whole number",
        ),
        (
            lambda: mtrl.train("diffusion", "point/obstacle", 5, updates=1),
            ConfigError,
            "as `demonstrate` returns; got int",
        ),
        (lambda: mtrl.train(5, "point/obstacle", {}, updates=1), ConfigError, "by its name"),
        (lambda: mtrl.make_tasks(5), ConfigError, "the name of a set or of a task.* got 5"),
        (lambda: mtrl.make_tasks(["point/obstacle", 5]), ConfigError, "list of such names"),
        (lambda: mtrl.make_tasks("dmc18", {"observation": "pixels"}), ConfigError, "settings by suite"),
        (lambda: mtrl.make("mixed"), ConfigError, r"'mixed' is a set of 6 tasks.*make_tasks\('mixed'\)\[0\]"),
        (lambda: mtrl.make(5), ConfigError, "one task or its name; got int"),
        (
            lambda: mtrl.evaluate(lambda observation: 0, "point/obstacle"),
            ConfigError,
            "got function.*mtrl.register",
        ),
        (
            lambda: mtrl.evaluate("random", "point/obstacle", episodes="a"),
            ConfigError,
            "evaluation.episodes='a'",
        ),
        (
            lambda: mtrl.demonstrate("point/obstacle", episodes="a"),
            ConfigError,
            "demonstrations.episodes='a'",
        ),
        (lambda: mtrl.demonstrate("point/obstacle", seed="a"), ConfigError, "seed is a whole number"),
        (lambda: mtrl.train("diffusion", "gym/CartPole-v1", {}, updates=1), UnsupportedError, "CartPole"),
        (lambda: mtrl.train("sac", "point/obstacle", {}, updates=1), ConfigError, "give it steps instead"),
        (lambda: mtrl.train("sac", "point/obstacle", {}, steps=9), ConfigError, "replay={'demonstrations'"),
        (lambda: mtrl.train("diffusion", "point/obstacle", steps=9), ConfigError, "give it data.*updates"),
        (lambda: mtrl.train("sb3", "point/obstacle", {}, updates=1), ConfigError, "`mtrl train agent=sb3`"),
        (lambda: mtrl.train("diffusio", "point/obstacle", {}, updates=1), UnknownNameError, "'diffusion'"),
    ],
)
def test_mistakes_are_answered(call: object, error: type[MtrlError], message: str) -> None:
    assert callable(call)
    with pytest.raises(error, match=message):
        call()


def test_a_snapshot_is_judged_under_its_kind() -> None:
    results = mtrl.evaluate(PolicySnapshot("random"), "point/obstacle", episodes=1)
    assert results["random"].policy.identity == "random"
