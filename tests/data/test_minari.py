"""Datasets on disk: Minari itself reads them, every bit returns, damage is named, nothing leaks."""

import contextlib
import dataclasses
import os
from pathlib import Path

import gymnasium
import minari
import numpy as np
import pytest

from mtrl import registry
from mtrl.data import Trajectories, dataset_id_of, read_dataset, read_provenance, write_dataset
from mtrl.errors import ConfigError, ExistsError, IntegrityError, SpaceError
from mtrl.rollout import Acting, EpisodeJob, LocalRollouts, PolicySnapshot, RuntimeConfig
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Split, Task, start_id

from .samples import BOTH, PIXELS, STATE, assert_equal, task_of, trajectories_of

PROVENANCE = {"expert": "scripted", "noise": 0.25, "seeds": [1, 2], "versions": {"mujoco": "3.3.0"}}


@pytest.mark.parametrize("task", [STATE, PIXELS, BOTH], ids=lambda task: task.name)
def test_every_bit_returns(tmp_path: Path, task: Task) -> None:
    data = trajectories_of(task, [4, 1, 3])
    root_hash = write_dataset(tmp_path, dataset_id_of(task), task, data, PROVENANCE)
    assert_equal(read_dataset(tmp_path, dataset_id_of(task), task), data)
    assert read_provenance(tmp_path, dataset_id_of(task)) == {
        "task": task.name,
        "protocol_hash": task.protocol_hash,
        "provenance": PROVENANCE,
        "root_hash": root_hash,
    }


def test_a_relative_place_is_below_the_current_folder(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        write_dataset(Path("data"), "made/one-v0", STATE, trajectories_of(STATE, [2]), PROVENANCE)
        read_dataset(Path("data"), "made/one-v0", STATE)
    assert (tmp_path / "data" / "made" / "one-v0" / "manifest.sha256").is_file()


@pytest.mark.parametrize("task", [STATE, PIXELS, BOTH], ids=lambda task: task.name)
def test_minari_itself_reads_it(tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    data = trajectories_of(task, [4, 1, 3])
    write_dataset(tmp_path, dataset_id_of(task), task, data, PROVENANCE)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert list(minari.list_local_datasets()) == [dataset_id_of(task)]
    dataset = minari.load_dataset(dataset_id_of(task))
    assert (dataset.total_episodes, dataset.total_steps) == (3, 8)
    metadata = list(dataset.storage.get_episode_metadata(range(3)))
    assert [int(one["start_id"]) for one in metadata] == data.start_id.tolist()
    for e, episode in enumerate(dataset.iterate_episodes()):
        steps = slice(data.offsets[e], data.offsets[e + 1])
        rows = slice(data.offsets[e] + e, data.offsets[e + 1] + e + 1)
        for bucket, expected in data.observations.items():
            found = episode.observations[bucket] if task is BOTH else episode.observations
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected[rows])
        np.testing.assert_array_equal(episode.actions, data.actions[steps])
        np.testing.assert_array_equal(episode.infos["expert_action"], data.labels[steps])
        np.testing.assert_array_equal(episode.infos["success"], data.success[steps])
        np.testing.assert_array_equal(episode.rewards, data.rewards[steps])
        np.testing.assert_array_equal(episode.terminations, data.terminated[steps])
        np.testing.assert_array_equal(episode.truncations, data.truncated[steps])
        first = episode.observations["state"][0] if task is BOTH else episode.observations[0]
        space = dataset.observation_space["state"] if task is BOTH else dataset.observation_space
        assert space.contains(first)
        assert dataset.action_space.contains(episode.actions[0])


def test_the_place_is_explicit_and_nothing_leaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(elsewhere))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    data = trajectories_of(STATE, [2])
    write_dataset(tmp_path / "root", "made/state-v0", STATE, data, {})
    assert_equal(read_dataset(tmp_path / "root", "made/state-v0", STATE), data)
    assert not elsewhere.exists()
    assert os.environ["MINARI_DATASETS_PATH"] == str(elsewhere)
    assert sorted(os.listdir(tmp_path)) == ["root"]


def test_equal_demonstrations_are_equal_files(tmp_path: Path) -> None:
    hashes = {
        write_dataset(tmp_path / root, "made/state-v0", STATE, trajectories_of(STATE, [3, 2]), PROVENANCE)
        for root in ("one", "two")
    }
    assert len(hashes) == 1


def test_an_existing_dataset_needs_overwrite(tmp_path: Path) -> None:
    first, second = trajectories_of(STATE, [3], seed=1), trajectories_of(STATE, [2, 2], seed=2)
    write_dataset(tmp_path, "made/state-v0", STATE, first, {})
    with pytest.raises(ExistsError, match="state-v0 already exists"):
        write_dataset(tmp_path, "made/state-v0", STATE, second, {})
    assert_equal(read_dataset(tmp_path, "made/state-v0", STATE), first)
    write_dataset(tmp_path, "made/state-v0", STATE, second, {}, overwrite=True)
    assert_equal(read_dataset(tmp_path, "made/state-v0", STATE), second)


@pytest.mark.parametrize("name", ["data/main_data.hdf5", "data/metadata.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "edited"])
def test_damage_is_found_and_named(tmp_path: Path, name: str, damage: str) -> None:
    write_dataset(tmp_path, "made/state-v0", STATE, trajectories_of(STATE, [3]), {})
    file = tmp_path / "made" / "state-v0" / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(content[:-1])
    else:
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=name):
        read_dataset(tmp_path, "made/state-v0", STATE)


def test_another_protocol_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, "made/state-v0", STATE, trajectories_of(STATE, [3]), {})
    other = dataclasses.replace(STATE, horizon_decisions=7)
    with pytest.raises(
        ConfigError, match=f"under protocol {STATE.protocol_hash}.*under {other.protocol_hash}"
    ):
        read_dataset(tmp_path, "made/state-v0", other)
    ending = dataclasses.replace(STATE, end_on_success=True)
    assert read_dataset(tmp_path, "made/state-v0", ending).episode_count == 1


def test_what_is_not_the_tasks_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    data = trajectories_of(STATE, [3])
    double = dataclasses.replace(data, rewards=data.rewards.astype(np.float64))
    wide = task_of("made/wide", ObservationSpec(state=6), ActionSpec(continuous=2))
    for task, given, message in [
        (BOTH, data, "lack the bucket 'pixels'|state of made/both"),
        (
            wide,
            data,
            r"state of made/wide: expected float32 rows of shape \(6,\), got float32 of shape \(5,\)",
        ),
        (STATE, double, "rewards of made/state-v3 are float32"),
        (STATE, data.select([]), "no episode"),
    ]:
        with pytest.raises(SpaceError, match=message):
            write_dataset(tmp_path, "made/state-v0", task, given, {})
    with pytest.raises(ConfigError, match="provenance must be JSON"):
        write_dataset(tmp_path, "made/state-v0", STATE, data, {"path": tmp_path})
    assert os.listdir(tmp_path) == []


def test_names(tmp_path: Path) -> None:
    assert dataset_id_of(STATE) == "made/state-v3-v0"
    odd = task_of("gym/Ant.x y-v5", ObservationSpec(state=1), ActionSpec(continuous=1))
    assert dataset_id_of(odd, version=2) == "gym/Ant_x_y-v5-v2"
    for name in ("reach-v3", "../reach-v0", "a/reach-v0", "made/reach", "made//reach-v0"):
        with pytest.raises(ConfigError, match="is no dataset id"):
            read_dataset(tmp_path, name, STATE)
    with pytest.raises(ConfigError, match=r"no dataset made/reach-v0.*mtrl collect"):
        read_dataset(tmp_path, "made/reach-v0", STATE)


def test_the_environment_is_recovered_and_repeats_its_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorded actions from the recorded start give the recorded episode, bit for bit."""
    tasks = registry.task_set("point/obstacle")
    start = start_id(Split.TRAIN, 3)
    rollouts = LocalRollouts(tasks, RuntimeConfig())
    job = EpisodeJob(0, (start,), seed=0, acting=Acting(), copies=1, record=True)
    (result,) = rollouts.run([job], PolicySnapshot("expert"))
    rollouts.close()
    assert result.episodes is not None
    data = Trajectories.from_episodes(result.episodes)
    write_dataset(tmp_path, dataset_id_of(tasks[0]), tasks[0], data, {})
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    dataset = minari.load_dataset(dataset_id_of(tasks[0]))
    environment = dataset.recover_environment()
    assert environment.observation_space == dataset.observation_space
    assert environment.action_space == dataset.action_space
    (episode,) = dataset.iterate_episodes()
    observation, _ = environment.reset(options={"start": start})
    observations, rewards = [observation], []
    for action in episode.actions:
        observation, reward, *_ = environment.step(action)
        observations.append(observation)
        rewards.append(np.float32(reward))
    environment.close()
    np.testing.assert_array_equal(observations, episode.observations)
    np.testing.assert_array_equal(rewards, episode.rewards)
    spec = dataset.env_spec
    spec.kwargs["protocol_hash"] = "0" * 16
    with pytest.raises(ConfigError, match=r"has protocol .* here"):
        gymnasium.make(spec)
