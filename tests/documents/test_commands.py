"""Every command of the documents composes, and runs with a debug budget where nothing else is needed."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator

import pytest

from mtrl.launch.compose import compose
from mtrl.launch.main import FOLDERS, build_verb
from mtrl.pipeline import agent_of, task_set_of

from ..sweeps import sampled
from .pages import COMMANDS, ROOT
from .workshop import Workshop

COMPOSED = {"train", "collect", "tune", "doctor", "data"}
"""Commands whose settings stand alone; those of the others change a run's."""
ELSEWHERE = ("submit", "robot=ros2", "example", "--address")
"""Need a cluster, a ROS 2 node or an installed package: tests/distributed, `make interop`, tests/plugins."""
ON_RAY = ("tune", "runtime=ray", "agent=rllib")


@pytest.mark.parametrize("text", COMMANDS)
def test_a_command_composes(text: str) -> None:
    _, verb, *words = shlex.split(text)
    own = words[: words.index("--")] if verb == "submit" and "--" in words else words
    module = importlib.import_module(f"mtrl.launch.{FOLDERS.get(verb, '')}{verb}")
    parsed = build_verb(verb, module).parse_intermixed_args(own)
    if verb == "submit" and "--" in words:
        test_a_command_composes(f"mtrl {shlex.join(words[len(own) + 1 :])}")
    if verb not in COMPOSED or "example" in text or "my_task" in text:
        return
    given = [word for word in own if re.match(r"[\w.]+=(?!(choice|log|uniform)\()", word)]
    given = [word for word in given if not word.startswith("seeds=")]
    config = compose(given, command=verb if verb in ("train", "collect") else "train")
    assert parsed is not None and task_set_of(config)
    if verb == "train":
        agent_of(config)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("workshop")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", f"{ROOT}:{folder}")
        patch.syspath_prepend(str(folder))
        yield Workshop(folder)


HERE = [text.removeprefix("mtrl ") for text in COMMANDS if not any(word in text for word in ELSEWHERE)]
PLAIN = [text for text in HERE if not any(word in text for word in ON_RAY)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("text", sampled(PLAIN, share=16), ids=str)
def test_a_command_runs_with_a_debug_budget(text: str, workshop: Workshop) -> None:
    workshop.run(text)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("text", [text for text in HERE if text not in PLAIN], ids=str)
def test_a_command_runs_on_ray(text: str, workshop: Workshop) -> None:
    workshop.run(text)
