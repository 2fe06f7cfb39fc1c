"""LeRobot datasets: pandas and pyarrow read what is written, every bit returns, strangers are checked."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtrl.data import Trajectories, lerobot, read_lerobot, read_lerobot_info, write_lerobot
from mtrl.errors import ConfigError, ExistsError, IntegrityError, MtrlError, SpaceError, UnsupportedError
from mtrl.launch.main import main

from .samples import BOTH, PIXELS, STATE, assert_equal, trajectories_of

OTHER = replace(STATE, name="made/other-v3")
DATA = Path("data", "chunk-000", "file-000.parquet")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    place = tmp_path / "written"
    pairs = [(STATE, trajectories_of(STATE, [4, 1, 3])), (OTHER, trajectories_of(OTHER, [2, 5], seed=1))]
    write_lerobot(place, pairs, {"expert": "scripted"})
    return place


def test_every_bit_returns(written: Path) -> None:
    found = read_lerobot(read_lerobot_info(written), {task.name: task for task in (STATE, OTHER)})
    assert_equal(found[STATE.name], trajectories_of(STATE, [4, 1, 3]))
    assert_equal(found[OTHER.name], trajectories_of(OTHER, [2, 5], seed=1))


def test_episodes_may_lie_in_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot, "FILE_BYTES", 300)
    monkeypatch.setattr(lerobot, "FILES_PER_CHUNK", 2)
    data = trajectories_of(STATE, [4, 1, 3, 6, 2, 9])
    write_lerobot(tmp_path / "many", [(STATE, data)], {})
    files = sorted(str(file.relative_to(tmp_path / "many")) for file in tmp_path.glob("many/data/*/*"))
    assert len(files) > 3 and files[2] == "data/chunk-001/file-000.parquet"
    assert_equal(read_lerobot(read_lerobot_info(tmp_path / "many"), {STATE.name: STATE})[STATE.name], data)


def test_the_files_are_as_the_format_has_them(written: Path) -> None:
    info = json.loads((written / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["splits"]) == ("v3.0", 50, {"train": "0:5"})
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (5, 15, 2)
    tasks = pd.read_parquet(written / "meta/tasks.parquet")
    assert tasks.index.tolist() == [STATE.name, OTHER.name] and tasks["task_index"].tolist() == [0, 1]
    file = pq.ParquetFile(written / DATA)
    assert file.num_row_groups == 5, "one an episode"
    assert file.schema_arrow.field("observation.state").type == pa.list_(pa.float32(), 5)
    frames = file.read().to_pandas()
    assert set(frames) == set(info["features"])
    assert frames["index"].tolist() == list(range(15))
    assert frames["frame_index"].tolist() == [0, 1, 2, 3, 0, 0, 1, 2, 0, 1, 0, 1, 2, 3, 4]
    np.testing.assert_allclose(frames["timestamp"], frames["frame_index"] / 50)
    assert frames["next.done"].tolist() == [k in (3, 4, 7, 9, 14) for k in range(15)]
    episodes = pq.read_table(written / lerobot.EPISODES).to_pylist()
    data = trajectories_of(OTHER, [2, 5], seed=1)
    assert episodes[3]["tasks"] == [OTHER.name]
    assert (episodes[3]["dataset_from_index"], episodes[3]["dataset_to_index"]) == (8, 10)
    np.testing.assert_allclose(episodes[3]["stats/action/mean"], data.actions[:2].mean(0), rtol=1e-6)
    stats = json.loads((written / "meta/stats.json").read_text())
    assert stats["observation.state"]["count"] == [15] and len(stats["action"]["q99"]) == 2


def test_a_foreign_dataset_is_read_as_far_as_it_goes(written: Path) -> None:
    foreign(written, lambda frames: frames.select(["observation.state", "action", "index", "task_index"]))
    info = read_lerobot_info(written)
    with pytest.raises(ConfigError, match="does not say which episodes succeeded"):
        read_lerobot(info, {STATE.name: STATE})
    found = read_lerobot(info, {STATE.name: STATE}, success=True)[STATE.name]
    expected = trajectories_of(STATE, [4, 1, 3])
    np.testing.assert_array_equal(found.actions, expected.actions)
    np.testing.assert_array_equal(found.labels, expected.actions)
    assert found.success.tolist() == [False, False, False, True, True, False, False, True]
    assert not found.rewards.any() and found.start_id.tolist() == [-1, -1, -1]
    states = found.observations["state"]
    np.testing.assert_array_equal(states[:4], expected.observations["state"][:4])
    np.testing.assert_array_equal(states[4], states[3])


def foreign(place: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Makes of a dataset one that somebody else wrote, with these frames."""
    frames = change(pq.read_table(place / DATA))
    pq.write_table(frames, place / DATA)
    info = json.loads((place / "meta/info.json").read_text())
    info["features"] = {name: info["features"][name] for name in frames.column_names}
    (place / "meta/info.json").write_text(json.dumps(info))
    (place / "meta/mtrl.json").unlink()
    episodes = pq.read_table(place / lerobot.EPISODES)
    pq.write_table(episodes.drop_columns([lerobot.FINAL, "start_id"]), place / lerobot.EPISODES)


def scaled(factor: float) -> Callable[[pa.Table], pa.Table]:
    def change(frames: pa.Table) -> pa.Table:
        values = np.stack(frames["action"].to_numpy()) * np.float32(factor)
        place = frames.column_names.index("action")
        array = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 2)
        return frames.set_column(place, "action", array)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (scaled(40.0), "expected -1 to 1. They are of another scale"),
        (scaled(np.nan), "action of made/state-v3 .* not finite"),
    ],
)
def test_actions_of_another_scale_are_refused(
    written: Path, change: Callable[[pa.Table], pa.Table], said: str
) -> None:
    foreign(written, change)
    with pytest.raises(SpaceError, match=said):
        read_lerobot(read_lerobot_info(written), {STATE.name: STATE})


@pytest.mark.parametrize(
    ("task", "error", "said"),
    [
        (replace(STATE, reward_version="test-v2"), ConfigError, "under protocol"),
        (replace(STATE, action=replace(STATE.action, continuous=3)), ConfigError, "under protocol"),
        (replace(STATE, name="made/else-v3"), ConfigError, "has no task 'made/else-v3'; it has"),
    ],
)
def test_another_task_is_refused(written: Path, task: object, error: type[MtrlError], said: str) -> None:
    with pytest.raises(error, match=said):
        read_lerobot(read_lerobot_info(written), {task.name: task})  # type: ignore[attr-defined, dict-item]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"observation": replace(STATE.observation, state=6)}, "observation.state of .* expects"),
        ({"simulator_rate_hz": 80.0}, "50 frames per second, made/state-v3 80 decisions"),
    ],
)
def test_a_stranger_of_another_form_is_refused(written: Path, changes: dict[str, object], said: str) -> None:
    (written / "meta/mtrl.json").unlink()
    with pytest.raises(SpaceError, match=said):
        read_lerobot(read_lerobot_info(written), {STATE.name: replace(STATE, **changes)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "damage",
    [
        lambda place: (place / DATA).write_bytes((place / DATA).read_bytes()[:-9]),
        lambda place: (place / lerobot.EPISODES).write_bytes(b"PAR1"),
        lambda place: (place / "meta/tasks.parquet").unlink(),
        lambda place: (place / "meta/info.json").write_text("{"),
        lambda place: edited(place, total_frames=10**12),
        lambda place: edited(place, codebase_version="v2.1"),
        lambda place: edited(place, data_path="../../{chunk_index}/{file_index}"),
        lambda place: edited(place, total_episodes=4),
        lambda place: pq.write_table(pq.read_table(place / DATA).slice(0, 12), place / DATA),
    ],
)
def test_damage_is_named(written: Path, damage: Callable[[Path], object]) -> None:
    damage(written)
    with pytest.raises(IntegrityError, match=str(written)):
        read_lerobot(read_lerobot_info(written), {STATE.name: STATE, OTHER.name: OTHER})


def edited(place: Path, **changes: object) -> None:
    file = place / "meta/info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_what_the_format_cannot_hold_is_refused(written: Path) -> None:
    for task in (PIXELS, BOTH):
        with pytest.raises(UnsupportedError, match=f"{task.name} observes"):
            write_lerobot(written.parent / "no", [(task, trajectories_of(task, [2]))], {})
    faster = replace(OTHER, simulator_rate_hz=80.0)
    pairs = [(STATE, trajectories_of(STATE, [2])), (faster, trajectories_of(faster, [2]))]
    with pytest.raises(SpaceError, match=r"\(5, 2, 80.0\) of made/other-v3 and \(5, 2, 50.0\)"):
        write_lerobot(written.parent / "no", pairs, {})
    with pytest.raises(ExistsError):
        write_lerobot(written, pairs[:1], {})
    assert not (written.parent / "no").exists()


def test_merging_keeps_every_episode() -> None:
    parts = [trajectories_of(STATE, [4, 1], seed=1), trajectories_of(STATE, [3], seed=2)]
    merged = Trajectories.merged(parts)
    assert merged.lengths.tolist() == [4, 1, 3]
    assert_equal(merged.select([0, 1]), parts[0])
    assert_equal(merged.select([2]), parts[1])


def test_the_command_converts_there_and_back_and_merges(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    task = "tasks=[point/obstacle]"
    for seed in (1, 2):
        words = ["collect", task, "episodes=2", f"seed={seed}", "--out", str(tmp_path / f"seed{seed}")]
        assert main(words) == 0
    first = tmp_path / "seed1"
    assert main(["data", "convert", str(first), task, "--to", "lerobot", "--out", str(there)]) == 0
    assert main(["data", "convert", str(there), task, "--to", "minari", "--out", str(back)]) == 0
    both = ["data", "merge", str(back), str(tmp_path / "seed2"), task, "--out", str(tmp_path / "both")]
    assert main(both) == 0
    assert main(both) == 2, "nothing is replaced unasked"
    capsys.readouterr()
    for place, episodes in ((first, 2), (there, 2), (back, 2), (tmp_path / "both", 4)):
        assert main(["data", "inspect", str(place), task]) == 0
        assert re.search(rf"^point/obstacle +{episodes} ", capsys.readouterr().out, re.MULTILINE)
    hdf5 = Path("point", "obstacle-v0", "data", "main_data.hdf5")
    assert (first / hdf5).stat().st_size == (back / hdf5).stat().st_size
    shutil.rmtree(first)
    for words, said in (
        (["inspect", str(first), task], "is no folder"),
        (["convert", str(there), task, "--to", "minari"], "needs --out"),
        (["convert", str(there), task, "--to", "lerobot", "--out", str(there)], "is read from"),
        (["inspect", str(back), "tasks=[gym/CartPole-v1]"], "has demonstrations of none of these tasks"),
        (["inspect", str(there), task, "--called", "push"], "has no task 'push'; it has 'point/obstacle'"),
    ):
        assert main(["data", *words]) == 2
        assert said in capsys.readouterr().err
