"""Blocks that are not commands: Python runs, files parse, links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from .pages import BLOCKS, PAGES, ROOT, Block, blocks_in


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    assert {block.language for block in BLOCKS} <= {"", "python", "toml", "yaml"}


@pytest.mark.parametrize("block", blocks_in("python"), ids=str)
def test_a_python_block_is_python(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", blocks_in("toml"), ids=str)
def test_an_entry_point_names_a_group_that_is_read(block: Block) -> None:
    groups = tomllib.loads(block.text)["project"]["entry-points"]
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    assert groups and set(groups) <= {*ours, "mtrl.robots"}


@pytest.mark.parametrize("block", blocks_in("yaml"), ids=str)
def test_a_yaml_block_is_a_mapping(block: Block) -> None:
    assert isinstance(yaml.safe_load(block.text), dict)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_python_blocks_run_as_a_reader_types_them(tmp_path: Path) -> None:
    blocks = [block for block in blocks_in("python") if block.page.parent.name != "tutorials"]
    # the run that the page on Python reads
    first = (
        "train agent=sac tasks=[gym/CartPole-v1] online.warmup=200 steps=300 name=sac-CartPole-v1 "
        "training.threads=1"
    )
    for words in (
        ["-m", "mtrl.launch.main", *first.split()],
        ["-c", "\n".join(block.text for block in blocks)],
    ):
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
            check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def anchors_of(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        assert place.exists(), f"{page}: {target}"
        assert not anchor or place.suffix != ".md" or anchor in anchors_of(place), f"{page}: {target}"


def test_troubleshooting_quotes_what_is_said() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = [
        part.strip(" ;'")
        for row in re.findall(r"^\| (.*?) \|", page, re.MULTILINE)
        for message in re.findall(r"`([^`]*\.\.\.[^`]*|[^`]{25,})`", row)
        for part in message.split("...")
        if len(part.strip(" ;'")) > 6
    ]
    assert len(quoted) >= 10
    # messages are written in pieces: their words are compared, without what is filled in
    code = "".join(
        path.read_text(encoding="utf-8") for room in ("mtrl", "launch", "agents", "envs") for path in
        (ROOT / room).rglob("*.py")
    )  # fmt: skip
    code = re.sub(r'"\s*\n\s*f?"', "", re.sub(r"\{[^{}]*\}", "", code))
    assert [part for part in quoted if part not in code] == []
