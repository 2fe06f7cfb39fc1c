"""`mtrl collect` on a cluster; it stands here because tests of this folder share one."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mtrl import registry
from mtrl.data import dataset_id_of, read_dataset
from mtrl.launch.main import main


@pytest.mark.usefixtures("ray_cluster")
def test_ray_and_local_collect_equal_demonstrations(tmp_path: Path) -> None:
    tasks = ["point/obstacle", "metaworld/reach-v3"]
    words = ["collect", f"tasks=[{','.join(tasks)}]", "episodes=3", "demonstrations.job_episodes=1"]
    assert main([*words, "--out", str(tmp_path / "local")]) == 0
    assert main([*words, "runtime=ray", "runtime.actors=2", "--out", str(tmp_path / "ray")]) == 0
    for task in registry.task_set(tasks):
        here, there = (
            read_dataset(tmp_path / place, dataset_id_of(task), task) for place in ("local", "ray")
        )
        for field in dataclasses.fields(here):
            left, right = getattr(here, field.name), getattr(there, field.name)
            for bucket in left if isinstance(left, dict) else [None]:
                np.testing.assert_array_equal(
                    *((left, right) if bucket is None else (left[bucket], right[bucket])), err_msg=field.name
                )
