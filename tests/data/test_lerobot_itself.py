"""LeRobot's own reader, installed apart, finds in a dataset what was written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mtrl.data import write_lerobot

from .samples import STATE, trajectories_of

HERE = Path(__file__).parent


@pytest.mark.slow
def test_lerobot_reads_every_frame(tmp_path: Path) -> None:
    site, place = tmp_path / "site", tmp_path / "data"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, "--requirement", str(HERE / "lerobot.txt")], check=True)
    other = replace(STATE, name="made/other-v3")
    first, second = trajectories_of(STATE, [4, 1]), trajectories_of(other, [6], seed=1)
    write_lerobot(place, [(STATE, first), (other, second)], {})
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_LEROBOT_HOME": str(tmp_path / "home")}
    read = subprocess.run(
        [sys.executable, str(HERE / "lerobot_reader.py"), str(site), str(place)],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    found = json.loads(read.stdout)
    assert (found["episodes"], found["fps"]) == (3, 50)
    states = np.concatenate([first.observations["state"][[0, 1, 2, 3, 5]], second.observations["state"][:6]])
    np.testing.assert_array_equal(np.float32(found["states"]), states)
    actions = np.concatenate([first.actions, second.actions])
    np.testing.assert_array_equal(np.float32(found["actions"]), actions)
    assert found["success"] == [*first.success.tolist(), *second.success.tolist()]
    assert found["tasks"] == [STATE.name] * 5 + [other.name] * 6
    # episode 1 is one frame long, whose action is repeated past its end
    np.testing.assert_array_equal(np.float32(found["chunks"]), np.tile(first.actions[4], (1, 4, 1)))
    np.testing.assert_allclose(found["mean"], actions.mean(0), rtol=1e-5)
