"""A page as a browser would read it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "br", "wbr", "hr", "img", "input"}


class Page(HTMLParser):
    """What a browser would make of a page: elements, texts by section, rows of tables."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.section = ""
        self.texts: dict[str, str] = {}
        self.rows: list[tuple[str, list[str], list[float]]] = []
        self.values: dict[str, list[float]] = {}
        self.table = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.elements.append((tag, found))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = found["id"] or ""
        elif tag == "table":
            self.table = found.get("class") or self.section
        elif tag == "tr":
            self.rows.append((self.table, [], []))
        elif tag in ("td", "th"):
            self.rows[-1][1].append("")
        elif tag == "data":
            value = float(found["value"] or "nan")
            self.values.setdefault(self.section, []).append(value)
            if "tr" in self.open:
                self.rows[-1][2].append(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, text: str) -> None:
        if "style" in self.open or "svg" in self.open:
            return
        self.texts[self.section] = self.texts.get(self.section, "") + text
        if "td" in self.open or "th" in self.open:
            self.rows[-1][1][-1] += text

    def of_table(self, name: str) -> list[tuple[list[str], list[float]]]:
        return [(cells, values) for table, cells, values in self.rows if table == name]
