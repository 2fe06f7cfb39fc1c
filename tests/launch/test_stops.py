"""Ctrl-C, and what is printed then: the truth about what is kept, and a command that can be copied."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from mtrl.launch.main import main
from mtrl.training import Interruptible

from ..synthetic import CounterEnvironment, counter_suite

Capture = pytest.CaptureFixture[str]

SETTINGS = [
    "tasks=point/obstacle",
    "agent.network.width=16",
    "agent.network.blocks=1",
    "demonstrations.episodes=1",
    "demonstrations.job_episodes=1",
]


def test_ctrl_c_in_an_evaluation_waits_for_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The signal comes in the middle of an episode, which is not played on; what was finished is named."""
    with counter_suite() as suite:
        words = ["tasks=counter/long", "episodes=3", "evaluation.copies=1", "--out", str(tmp_path)]
        step = CounterEnvironment.step

        def interrupted(self: CounterEnvironment, *given: Any) -> tuple[float, bool, bool]:
            if self.t == 1:
                signal.raise_signal(signal.SIGINT)
            return step(self, *given)

        monkeypatch.setattr(CounterEnvironment, "step", interrupted)
        assert main(["evaluate", "random", *words]) == 130
        assert [environment.t for environment in suite.built] == [1]
        assert all(environment.closed for environment in suite.built)
    captured = capsys.readouterr()
    assert "stopped while evaluating random; no result was finished" in captured.out
    assert "checkpoint" not in captured.err
    assert not list(tmp_path.iterdir())


def test_the_words_of_a_user_are_no_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The command that resumes, whole and on one line; paths that hold brackets."""
    tasks = "tasks=[metaworld/reach-v3,metaworld/drawer-close-v3,metaworld/window-close-v3]"
    words = ["collect", tasks, "episodes=1", "--out", str(tmp_path / "[data]:b:")]
    monkeypatch.setattr(sys, "argv", ["mtrl", *words])
    monkeypatch.setattr(Interruptible, "__enter__", lambda self: setattr(self, "requested", True) or self)
    assert main(words) == 130
    printed = capsys.readouterr().out
    assert shlex.join(["mtrl", *words, "--resume", "auto"]) in printed
    monkeypatch.undo()
    assert (
        main(["evaluate", "expert", "tasks=point/obstacle", "episodes=1", "--out", str(tmp_path / "[e]:b:")])
        == 0
    )
    assert f"results are in {tmp_path / '[e]:b:'}" in capsys.readouterr().out
    words = ["train", *SETTINGS, f"output={tmp_path}/[mine]:b:", "name=small", "stages=[collect]"]
    assert main(words) == 0
    assert f"{tmp_path / '[mine]:b:' / 'small'}: 1 task," in capsys.readouterr().err
