"""A page as a browser would read it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

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


@dataclass(frozen=True)
class Shape:
    """A path, circle or text of a chart."""

    tag: str
    style: dict[str, str]
    points: list[tuple[float, float]]
    """Corners of a path, or the centre, in pixels from the upper left corner."""
    title: str
    text: str

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, width and height."""
        x, y = zip(*self.points, strict=True)
        return min(x), min(y), max(x) - min(x), max(y) - min(y)


def shapes(drawn: str, tag: str = "", **style: str) -> list[Shape]:
    """The shapes of a chart of one tag whose style has these values, underscores for hyphens."""
    wanted = {name.replace("_", "-"): value for name, value in style.items()}
    found = [_shape(element) for element in ET.fromstring(drawn)]
    return [one for one in found if tag in ("", one.tag) and wanted.items() <= one.style.items()]


def bar_widths(page: Path) -> list[str]:
    """Widths of all bars of a page, in percent of their chart's width."""
    charts = re.findall(r'<svg class="chart stretch".*?</svg>', page.read_text(encoding="utf-8"))
    bars = [one for chart in charts for one in shapes(chart, "path") if one.style.get("fill") != "none"]
    return [f"{bar.box[2] / 10:.2f}%" for bar in bars]


def _shape(element: ET.Element) -> Shape:
    pairs = [entry.split(": ") for entry in (element.get("style") or "").split("; ")]
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", element.get("d") or "")]
    centre = [(float(element.get("cx", "nan")), float(element.get("cy", "nan")))]
    title = element.find("title")
    return Shape(
        tag=element.tag,
        style={name: value.rstrip(";") for name, value in pairs},
        points=centre if element.tag == "circle" else list(zip(numbers[::2], numbers[1::2], strict=True)),
        title="" if title is None else title.text or "",
        text=element.text or "",
    )
