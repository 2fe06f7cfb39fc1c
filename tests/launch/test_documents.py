"""Documents show commands that compose and links that lead somewhere."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from mtrl.launch.compose import compose
from mtrl.launch.main import FOLDERS, build_verb
from mtrl.pipeline import agent_of, task_set_of

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("agents/*/README.md"))]
COMMANDS = sorted(
    {
        line
        for page in PAGES
        for block in re.findall(r"```\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        for line in re.findall(r"^(mtrl \w+ .+)$", block, re.MULTILINE)
        if "my_task" not in line  # a module that the reader writes
    }
)
"""Every line of a block that is a command with arguments."""
COMPOSED = {"train", "collect", "tune", "doctor", "data"}
"""Commands whose settings stand alone; those of the others change a run's."""


@pytest.mark.parametrize("text", COMMANDS)
def test_a_command_composes(text: str) -> None:
    _, verb, *words = shlex.split(text, comments=True)
    own = words[: words.index("--")] if verb == "submit" and "--" in words else words
    module = importlib.import_module(f"mtrl.launch.{FOLDERS.get(verb, '')}{verb}")
    parsed = build_verb(verb, module).parse_intermixed_args(own)
    if verb not in COMPOSED:
        return
    given = [word for word in own if re.match(r"[\w.]+=(?!(choice|log|uniform)\()", word)]
    given = [word for word in given if not word.startswith("seeds=")]
    config = compose(given, command=verb if verb in ("train", "collect") else "train")
    assert parsed is not None and task_set_of(config)
    if verb == "train":
        agent_of(config)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert target.startswith("http") or (page.parent / target).exists(), f"{page}: {target}"


def test_the_readme_is_short() -> None:
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 150
