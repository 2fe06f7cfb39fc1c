"""Policies that were trained or loaded act in a loop of Gymnasium as they do in an evaluation."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import mtrl
from mtrl.agents.sac import NetworkConfig
from mtrl.errors import ConfigError, ExistsError, SpaceError, UnknownNameError, UntrustedCodeError
from mtrl.launch.compose import compose
from mtrl.nn import TorsoConfig
from mtrl.pipeline import save_policy
from mtrl.rollout import PolicySnapshot
from mtrl.structured import plain
from mtrl.trained_policy import TrainedPolicy
from mtrl.training import RunDirectory

TASKS = ["gym/CartPole-v1", "point/obstacle"]


@pytest.fixture(scope="module")
def trained() -> TrainedPolicy:
    network = NetworkConfig(torso=TorsoConfig(width=8))
    return mtrl.train("sac", TASKS, steps=300, random_steps=200, network=network, batch_size=8)


def keep(place: Path, policy: TrainedPolicy, tasks: Sequence[str] = TASKS) -> Path:
    config = plain(compose([f"tasks=[{','.join(TASKS)}]", "agent=sac"]))
    config["tasks"]["names"] = list(tasks)
    run = RunDirectory.create(place, config=config)
    save_policy(run.path / "policies" / "teacher", policy.snapshot())
    return place


@pytest.mark.parametrize("task", TASKS)
def test_an_episode_in_a_gymnasium_loop_is_that_of_the_evaluation(trained: TrainedPolicy, task: str) -> None:
    (found,) = mtrl.evaluate({"sac": trained}, TASKS, episodes=2)
    environment = mtrl.make(task)
    for episode in found.task_episodes(task):
        observation, _ = environment.reset(options={"start": episode.start})
        trained.reset()
        total, length, ended = 0.0, 0, False
        while not ended:
            action = trained.act(observation, task)
            assert environment.action_space.contains(action)
            observation, reward, terminated, truncated, _ = environment.step(action)
            total, length, ended = total + reward, length + 1, terminated or truncated
        assert length == episode.length
        assert total == pytest.approx(episode.episode_return, rel=1e-5)
    environment.close()


def test_a_run_is_loaded_played_and_evaluated_like_what_was_trained(
    trained: TrainedPolicy, tmp_path: Path
) -> None:
    loaded = mtrl.load(keep(tmp_path / "run", trained))
    assert loaded.tasks.names == trained.tasks.names and loaded.updates == trained.updates
    observation = [0.01, 0.02, 0.03, 0.04]
    assert loaded.act(observation, 0) == trained.act(observation, 0)
    ours = mtrl.evaluate(loaded, episodes=2)["sac"]
    assert ours.episodes == mtrl.evaluate(trained, episodes=2)["sac"].episodes
    assert len(ours.policy.identity) == 64
    by_path = mtrl.evaluate({"a": str(tmp_path / "run"), "b": "random"}, episodes=2)
    assert by_path["a"].episodes == ours.episodes


def test_drawn_actions_follow_the_seed_of_the_episode(trained: TrainedPolicy) -> None:
    draws = []
    for seed in (1, 1, 2):
        trained.reset(seed)
        draws.append([trained.act(np.zeros(4), 0, explore=True) for _ in range(30)])
    assert draws[0] == draws[1] != draws[2]


def test_mistakes_are_answered(trained: TrainedPolicy, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has 2 tasks; say which one"):
        trained.act(np.zeros(4))
    with pytest.raises(UnknownNameError, match="did you mean 'gym/CartPole-v1'"):
        trained.act(np.zeros(4), "gym/CartPol-v1")
    with pytest.raises(SpaceError, match=r"gym/CartPole-v1 is state \[4\]; got state \[3\]"):
        trained.act(np.zeros(3), 0)
    with pytest.raises(ConfigError, match="0 to 1; got 2"):
        trained.act(np.zeros(3), 2)
    with pytest.raises(ConfigError, match="is not a run of mtrl"):
        mtrl.load(tmp_path)
    with pytest.raises(ConfigError, match="got TrainedPolicy"):
        mtrl.load(trained)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="brings no tasks"):
        mtrl.evaluate(PolicySnapshot("random"))
    own = keep(tmp_path / "own", trained, tasks=["gym/some_module:Own-v0"])
    with pytest.raises(UntrustedCodeError, match="some_module"):
        mtrl.load(own)


def test_results_are_tidy_rows(tmp_path: Path) -> None:
    results = mtrl.evaluate({"best": "expert", "worst": "random"}, "point/obstacle", episodes=3)
    frame = results.to_dataframe()
    assert len(frame) == 6 and list(frame.columns[:4]) == ["policy", "kind", "version", "task"]
    means = frame.groupby("policy")["success"].mean()
    by_task = results.to_dataframe("task").set_index("policy")
    for label in ("best", "worst"):
        assert means[label] == by_task.loc[label, "success"] == results[label].mean.success_any.rate
    assert frame["return"].tolist() == [e.episode_return for result in results for e in result.episodes]
    file = results.to_csv(tmp_path / "results.csv")
    with file.open(newline="") as opened:
        read = list(csv.DictReader(opened))
    assert [float(row["return"]) for row in read] == frame["return"].tolist()
    assert {row["score"] for row in read} <= {"1.0", "0.0"}
    with pytest.raises(ExistsError):
        results.to_csv(file)
    with pytest.raises(ConfigError, match="'episode' or a 'task'"):
        results.rows("step")  # type: ignore[arg-type]
