"""A shell that has read `mtrl completion bash` completes commands, options, settings and their values."""

import subprocess
import sys
from pathlib import Path

import pytest

import mtrl
from mtrl.launch.shell.completion import settings

ROOT = Path(mtrl.__file__).parents[1]

ASK = """
eval "$(mtrl completion bash)"
function=$(complete -p mtrl | sed 's/.*-F \\([^ ]*\\).*/\\1/')
for COMP_LINE in "$@"; do
    COMP_POINT=${#COMP_LINE}; COMP_TYPE=9; COMPREPLY=()
    $function mtrl "" ""
    echo "${COMPREPLY[@]}"
done
"""
"""What bash does at a Tab behind each line."""


def test_bash_completes_commands_options_settings_and_values(tmp_path: Path) -> None:
    command = tmp_path / "mtrl"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m mtrl.launch.main "$@"\n')
    command.chmod(0o755)
    lines = ["mtrl eva", "mtrl evaluate --po", "mtrl train agent=sa", "mtrl train tasks=metaworld/reach-"]
    done = subprocess.run(
        ["bash", "-c", ASK, "ask", *lines],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    answers = [line.split() for line in done.stdout.splitlines()]
    # bash splits a word at "=", and so is what it completes
    assert answers == [
        ["evaluate"],
        ["--policy"],
        ["sac"],
        ["metaworld/reach-v3", "metaworld/reach-wall-v3"],
    ], done.stderr


@pytest.mark.parametrize(
    ("words", "prefix", "expected"),
    [
        (["train"], "ste", ["steps="]),
        (["train"], "exp", ["experiment="]),
        (["train"], "evaluation.ep", ["evaluation.episodes="]),
        (["train", "agent=sac"], "agent.replay.c", ["agent.replay.capacity="]),
        (["train"], "tasks=[point/obstacle,point/obst", ["tasks=[point/obstacle,point/obstacle"]),
        (["train"], "tasks=mt1", ["tasks=mt10"]),
        (["train"], "gradients=pcg", ["gradients=pcgrad"]),
        (["train"], "seed=", []),
    ],
)
def test_settings_are_completed_at_their_end(words: list[str], prefix: str, expected: list[str]) -> None:
    assert list(settings(words, prefix)) == expected
