"""Meta-World tasks on 100 starts each, and beside the official environments: ten tasks a day, or all 50."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mtrl.envs.metaworld import SUITE

from ..sweeps import sampled
from .metaworld_census import EXPERT_STEPS, STARTS

NAMES = tuple(name.split("/")[1] for name in SUITE.names())
TIMEOUT_S = 420
"""For all tasks; two seconds a task are usual."""

pytestmark = pytest.mark.timeout(TIMEOUT_S + 60)


@pytest.fixture(scope="module")
def census(request: pytest.FixtureRequest) -> Mapping[str, Mapping[str, Any]]:
    """The findings on every task that a test asks for and that was finished in time."""
    cases = [getattr(item, "callspec", None) for item in request.session.items]
    asked = {case.params["findings"] for case in cases if case is not None and "findings" in case.params}
    command = [sys.executable, "-W", "ignore", "-m", "tests.envs.metaworld_census", *sorted(asked)]
    with subprocess.Popen(
        command, cwd=Path(__file__).resolve().parents[2], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            written, _ = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            written, _ = process.communicate()
    return {finding["task"]: finding for finding in map(json.loads, written.splitlines())}


@pytest.fixture(params=sampled(NAMES, share=5))
def findings(request: pytest.FixtureRequest, census: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    assert request.param in census, "did not finish: a reset or step hangs, or the process died; see stderr"
    return census[request.param]


def test_a_hundred_starts_are_exact_states(findings: Mapping[str, Any]) -> None:
    assert findings["changed_on_used"] == []
    assert findings["changed_on_fresh"] == []
    assert findings["different"] == STARTS


def test_every_start_shows_a_finite_state_and_the_goal(findings: Mapping[str, Any]) -> None:
    assert findings["not_finite"] == []
    assert findings["without_goal"] == []


def test_start_and_steps_equal_the_official_environment_s(findings: Mapping[str, Any]) -> None:
    """Bit for bit: given the accepted vector, a fresh official environment begins and goes on alike."""
    assert findings["equal_official_start"]
    assert findings["equal_official_steps"] == EXPERT_STEPS


def test_the_catalogue_has_the_official_sizes(findings: Mapping[str, Any]) -> None:
    entry = SUITE.entry(f"metaworld/{findings['task']}")
    assert vars(entry) == findings["official_entry"]
