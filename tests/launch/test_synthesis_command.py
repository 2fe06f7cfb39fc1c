"""Transitions of a model of demonstrations, through the commands."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest

from mtrl.agents.diffusion.synthesis import RowCode
from mtrl.data import dataset_id_of, read_dataset, read_provenance
from mtrl.launch.main import main
from mtrl.pipeline.synthesis import Likeness
from mtrl.registry import task_set

TASKS = ["point/obstacle", "maze2d/open"]
WORDS = [f"tasks=[{','.join(TASKS)}]", "agent.network.width=64", "agent.network.blocks=1"]


def mtrl(*words: str) -> int:
    with contextlib.redirect_stdout(io.StringIO()):
        return main(list(words))


def test_transitions_are_drawn_and_written_as_a_dataset(tmp_path: Path) -> None:
    assert mtrl("collect", *WORDS, "episodes=3", "--out", str(tmp_path / "few")) == 0
    words = [*WORDS, "source=synthesised", f"data={tmp_path / 'few'}", "episodes=40", "updates=150"]
    assert mtrl("collect", *words, "--out", str(tmp_path / "made")) == 0
    for task in task_set(TASKS):
        name = dataset_id_of(task)
        made = read_dataset(tmp_path / "made", name, task)
        assert made.episode_count == made.step_count == 40
        assert (made.terminated | made.truncated).all() and (made.start_id == 0).all()
        recorded = read_provenance(tmp_path / "made", name)["provenance"]
        source = read_provenance(tmp_path / "few", name)
        assert recorded["source"] == "synthesised" and recorded["from"][task.name] == source["root_hash"]
        likeness = Likeness.of(made, read_dataset(tmp_path / "few", name, task))
        assert likeness.means < 0.6 and likeness.deviations < 0.7
        # what a point does next follows from where it is: x' is near x
        before, after = made.observations["state"][::2, 0], made.observations["state"][1::2, 0]
        assert np.abs(after - before).mean() < 0.2 * np.abs(after - np.roll(before, 1)).mean()


def test_what_cannot_be_synthesised_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["collect", "source=synthesised", "tasks=point/obstacle", "--out", str(tmp_path / "made")]
    assert mtrl(*words) == 2 and "data=FOLDER" in capsys.readouterr().err
    assert mtrl(*words, "agent=sac", f"data={tmp_path}") == 2
    assert "agent=diffusion" in capsys.readouterr().err
    assert (
        mtrl("train", "tasks=point/obstacle", "demonstrations.source=synthesised", f"output={tmp_path}") == 2
    )
    assert "mtrl collect" in capsys.readouterr().err
    assert not (tmp_path / "made").exists() or not list((tmp_path / "made").iterdir())


def test_a_transition_comes_back_from_its_code() -> None:
    from tests.agents.demonstrations import choice_data

    data = choice_data(episodes=3)[1]
    code, rows = RowCode.of(data)
    assert rows.shape == (18, 3 + 2 + 3 + 3) and np.abs(rows).max() <= 1.0
    back = code.decoded(rows)
    np.testing.assert_allclose(back.actions, data.actions, atol=1e-5)
    np.testing.assert_allclose(back.rewards, data.rewards, atol=1e-5)
    np.testing.assert_array_equal(back.success, data.success)
    seen = data.observations["state"].reshape(3, 7, 3)
    np.testing.assert_allclose(back.observations["state"][1::2].reshape(3, 6, 3), seen[:, 1:], atol=1e-4)
