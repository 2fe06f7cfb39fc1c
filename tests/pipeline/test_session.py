"""What a session keeps and reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mtrl.pipeline import load_policy, save_policy
from mtrl.rollout import PolicySnapshot
from mtrl.training import save_state


def test_a_policy_is_read_as_it_was_kept(tmp_path: Path) -> None:
    kept = PolicySnapshot("net", {"width": 8}, {"weight": np.arange(3.0)}, version=7, incarnation=2)
    save_policy(tmp_path / "policy", kept)
    found, _ = load_policy(tmp_path / "policy")
    assert found.same_as(kept)


def test_a_policy_kept_before_incarnations_were_counted_is_read(tmp_path: Path) -> None:
    old = {"kind": "net", "config": {"width": 8}, "tensors": {"weight": np.arange(3.0)}, "version": 7}
    save_state(tmp_path / "policy", old, overwrite=True)
    found, _ = load_policy(tmp_path / "policy")
    assert (found.version, found.incarnation, found.config) == (7, 0, {"width": 8})
