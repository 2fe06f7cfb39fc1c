"""The pages that readers see, and their fenced blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(page for pattern in ("docs", "agents", "examples") for page in sorted((ROOT / pattern).rglob("*.md"))),
]
"""Every page that is written by hand or drawn from results."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    """Line of its first line, from 1."""
    language: str
    """What stands behind the fence; empty for commands and output."""
    text: str

    def __str__(self) -> str:
        """Where it stands, as an editor opens it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, those inside lists included."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start()) + 2, found[1], found[2])
        for found in re.finditer(r"^ *```(\w*)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
"""All blocks."""


def blocks_in(language: str) -> list[Block]:
    """All blocks of a language."""
    return [block for block in BLOCKS if block.language == language]


COMMANDS = sorted(
    {
        re.sub(r"\s+# .*| +\.\.\.$", "", line)
        for block in blocks_in("")
        for line in re.findall(r"^ *(mtrl \w+.*)$", block.text, re.MULTILINE)
        if block.page.parent.name != "results"  # studies, which `make results` repeats
    }
)
"""Every line of a block that is a command of mtrl, without its comment."""
