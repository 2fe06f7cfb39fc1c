"""Parts that every figure of the report is made of: inline SVG, a grid with ticks, lines, titles.

Positions are percentages and colours are classes, so that a figure follows the width of the page and
its light or dark theme without scaling its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from markupsafe import Markup

from .axes import Axis, short_number

COLOURS = 8
"""Classes s1 to s8 of the style sheet; more lines in one figure are told apart by their titles alone."""

FAINT = 0.6
"""Exponent from a value's size to the fullness of its colour: most cosines and shares are small, and an
even scale would leave them without colour."""


def plot(label: str, height: int, kind: str = "") -> ET.Element:
    """An empty figure of `height` pixels; `label` is what a screen reader says."""
    attributes = {"class": f"plot {kind}".strip(), "role": "img", "width": "100%", "height": str(height)}
    return ET.Element("svg", {**attributes, "aria-label": label})


def grid(figure: ET.Element, horizontal: Axis, vertical: Axis, percent: bool = False) -> None:
    """Lines at the vertical ticks, numbers at both axes' ticks; `percent` prints shares."""
    level_grid(figure, vertical, percent)
    for tick in horizontal.ticks:
        text = add(figure, "text", "tick", x=at(horizontal.place(tick)), y="100%", dy="16")
        text.set("text-anchor", "middle")
        text.text = signed(short_number(tick))


def level_grid(figure: ET.Element, vertical: Axis, percent: bool = False) -> None:
    """Lines and numbers at the vertical ticks alone."""
    for tick in vertical.ticks:
        y = at(1 - vertical.place(tick))
        add(figure, "line", "grid", x1="0", x2="100%", y1=y, y2=y)
        text = add(figure, "text", "tick", x="-8", y=y, dy="0.32em")
        text.set("text-anchor", "end")
        text.text = signed(f"{100 * tick:g}%" if percent else short_number(tick))


def line(
    figure: ET.Element,
    horizontal: Axis,
    vertical: Axis,
    steps: Sequence[float],
    values: Sequence[float],
    colour: str = "s1",
    title_text: str = "",
) -> None:
    """A line through all points with a dot at the last one."""
    x = [1000 * horizontal.place(step) for step in steps]
    y = [1000 * (1 - vertical.place(value)) for value in values]
    # stretched to the plot's size; the stroke is not, by the style sheet
    inner = add(figure, "svg", "", viewBox="0 0 1000 1000", preserveAspectRatio="none")
    inner.set("width", "100%")
    inner.set("height", "100%")
    drawn = add(inner, "polyline", f"curve {colour}", points=coordinates(x, y))
    dot = add(figure, "circle", f"dot {colour}", cx=f"{x[-1] / 10:.2f}%", cy=f"{y[-1] / 10:.2f}%", r="3.5")
    if title_text:
        title(drawn, title_text)
        title(dot, title_text)


def level(figure: ET.Element, vertical: Axis, value: float, kind: str, title_text: str) -> None:
    """A line across the whole figure at one value."""
    y = at(1 - vertical.place(value))
    title(add(figure, "line", kind, x1="0", x2="100%", y1=y, y2=y), title_text)


def add(parent: ET.Element, tag: str, kind: str, **attributes: str) -> ET.Element:
    """A new element of class `kind`, if any."""
    named = {"class": kind, **attributes} if kind else attributes
    return ET.SubElement(parent, tag, named)


def title(element: ET.Element, text: str) -> None:
    """What a pointer resting on the element is told."""
    ET.SubElement(element, "title").text = text


def coordinates(x: Sequence[float], y: Sequence[float]) -> str:
    """Coordinates as a polyline's attribute."""
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def at(share: float) -> str:
    """A share of the figure's width or height."""
    return f"{100 * share:.2f}%"


def fullness(value: float) -> float:
    """How full the colour of a value of size 0 to 1 is."""
    return float(abs(value) ** FAINT)


def signed(number: str) -> str:
    """The number with a true minus sign, which is as wide as a digit; exponents keep their hyphen."""
    return f"−{number[1:]}" if number.startswith("-") else number


def markup(figure: ET.Element) -> Markup:
    """The figure as text for the page."""
    # safe by construction: ElementTree escapes every text and attribute
    return Markup(ET.tostring(figure, encoding="unicode"))
