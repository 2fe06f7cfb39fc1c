"""Charts by matplotlib as inline SVG for a page: no fonts, no colours and no addresses of their own.

    chart = Chart("loss: from 2 to 0.5", 290, 152)
    chart.plot(Scale.linear(0, 10), Scale.of(values)).curve(steps, values)
    page.add(chart.markup())

Colours are names of PALETTE, written as CSS variables, so that a chart follows the light or dark theme of a
page that defines them. The same data gives the same bytes. matplotlib is imported when a chart is drawn.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from .scale import Scale, signed_number

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.transforms import Transform

PALETTE = {
    "page": ("#fbfbfa", "#14161a"),
    "card": ("#ffffff", "#1b1e24"),
    "ink": ("#16181d", "#eceef2"),
    "soft": ("#565b66", "#aab0bb"),
    "faint": ("#868b96", "#7f8692"),
    "line": ("#e3e4e8", "#2d313a"),
    "grid": ("#ececef", "#282c34"),
    "shade": ("#f3f4f6", "#22262d"),
    "pale": ("#c9ccd3", "#474c57"),
    "s1": ("#2a78d6", "#5b9ee8"),
    "s2": ("#d9622b", "#e8834f"),
    "s3": ("#17976a", "#3dba8a"),
    "s4": ("#b98500", "#d6a531"),
    "s5": ("#7a5cc9", "#a48be6"),
    "s6": ("#c9427a", "#e5719f"),
    "s7": ("#3b8ea5", "#63b5cc"),
    "s8": ("#6b7a2a", "#a3b455"),
}
"""CSS variable -> its colour on a light and on a dark page; all light ones differ."""

COLOURS = 8
"""Colours s1 to s8 of lines; more lines in one chart differ by their titles alone."""

FAINT = 0.6
"""Exponent from a value's size to the fullness of its colour: most cosines and shares are small, and an
even scale would leave them without colour."""

LEFT, RIGHT, TOP, BOTTOM = 44.0, 6.0, 7.0, 22.0
"""Room for tick labels around the axes in pixels."""

_VARIABLES = {light: f"var(--{name})" for name, (light, _) in PALETTE.items()}
Align = Literal["left", "center", "right"]

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"


class Chart:
    """A figure of `width` x `height` pixels; `label` is what a screen reader says.

    It grows and shrinks with the width of the page, its text too; of `kind` "stretch", which holds no text,
    in its width alone; of `kind` "fixed" not at all.
    """

    def __init__(
        self, label: str, width: float, height: float, kind: Literal["", "stretch", "fixed"] = ""
    ) -> None:
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self._label, self._kind = label, kind
        # at 72 dots an inch a point is a pixel
        self._figure = Figure(figsize=(width / 72, height / 72), dpi=72, frameon=False)
        self._titles: dict[str, Sequence[str]] = {}

    def plot(
        self,
        horizontal: Scale,
        vertical: Scale,
        *,
        box: tuple[float, float, float, float] | None = None,
        share: bool = False,
        steps: bool = True,
    ) -> Plot:
        """A plot with lines at the vertical ticks and numbers at both, without `steps` at those alone.

        `share` prints the vertical ones in percent. `box` is left, bottom, width and height in pixels from
        the lower left corner, by default all but the room for numbers.
        """
        whole = (LEFT, BOTTOM, self.width - LEFT - RIGHT, self.height - BOTTOM - TOP)
        # a page of fifty tasks has two hundred plots, and matplotlib's own Axes take 30 ms to build
        plot = self.bare(horizontal, vertical, box or whole)
        for tick in vertical.ticks:
            plot.line((horizontal.low, horizontal.high), (tick, tick), "grid", width=1.0)
            shown = f"{100 * tick:g}%" if share else signed_number(tick)
            plot.text(horizontal.low, tick, shown, "faint", "right", shift=(-8, 0))
        for tick in horizontal.ticks if steps else ():
            plot.text(tick, vertical.low, signed_number(tick), "faint", shift=(0, -13))
        return plot

    def bare(
        self,
        horizontal: Scale,
        vertical: Scale,
        box: tuple[float, float, float, float] | None = None,
    ) -> Plot:
        """A plot without lines and numbers, by default in the whole figure."""
        from matplotlib.scale import LogTransform
        from matplotlib.transforms import Affine2D, IdentityTransform, blended_transform_factory

        left, bottom, width, height = box or (0, 0, self.width, self.height)
        bent = [LogTransform(10) if scale.log else IdentityTransform() for scale in (horizontal, vertical)]
        bend = blended_transform_factory(*bent)
        low, high = bend.transform([(horizontal.low, vertical.low), (horizontal.high, vertical.high)])
        place = Affine2D().translate(*-low).scale(*((width, height) / (high - low))).translate(left, bottom)
        return Plot(self._figure, bend + place, self._titles)

    def markup(self) -> Markup:
        """The chart as SVG for a page."""
        import matplotlib

        file = io.StringIO()
        unsaid = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mtrl"}):
            self._figure.savefig(file, format="svg", dpi=72, metadata=unsaid)
        attributes = {
            "class": f"chart {self._kind}".strip(),
            "role": "img",
            "aria-label": self._label,
            "viewBox": f"0 0 {self.width:g} {self.height:g}",
            "style": f"--width: {self.width:g}px; --height: {self.height:g}px",
        }
        if self._kind == "stretch":
            attributes["preserveAspectRatio"] = "none"
        flat = ET.Element("svg", attributes)
        flat.extend(_shapes(ET.fromstring(file.getvalue()), self._titles))
        # safe by construction: ElementTree escapes every text and attribute
        return Markup(ET.tostring(flat, encoding="unicode"))


class Plot:
    """A place in a chart that takes values by their scales; made by `Chart.plot` and `Chart.bare`."""

    def __init__(self, figure: Figure, transform: Transform, titles: dict[str, Sequence[str]]) -> None:
        self._figure, self._transform, self._titles = figure, transform, titles

    def line(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        colour: str = "s1",
        title: str = "",
        *,
        width: float = 1.8,
        opacity: float = 1.0,
        dash: tuple[float, float] | None = None,
    ) -> None:
        """A line through all points; `dash` is the length of a stroke and of a gap in pixels."""
        drawn = self._line(x, y, title and [title])
        drawn.set(color=light(colour), linewidth=width, alpha=opacity, solid_capstyle="butt")
        drawn.set_linestyle((0, dash) if dash else "solid")
        drawn.set_zorder(0 if colour == "grid" else 2)

    def curve(self, x: Sequence[float], y: Sequence[float], colour: str = "s1", title: str = "") -> None:
        """A line through all points with a dot at the last one."""
        self.line(x, y, colour, title)
        self.dots(x[-1:], y[-1:], colour, title and [title])

    def whisker(self, x: npt.ArrayLike, y: npt.ArrayLike) -> None:
        """A line that stands for an interval."""
        self.line(x, y, "ink", width=1.3)

    def dots(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        colour: str,
        titles: Sequence[str] = (),
        *,
        size: float = 7.0,
        edge: str = "card",
        layer: int = 4,
    ) -> None:
        """Circles of `size` pixels across with an `edge` of another colour; lines are in layer 2."""
        drawn = self._line(x, y, titles)
        drawn.set(marker="o", markersize=size, linestyle="none", zorder=layer)
        drawn.set(markerfacecolor=light(colour), markeredgecolor=light(edge), markeredgewidth=1.5)

    def rectangles(
        self,
        boxes: npt.ArrayLike,
        colours: Sequence[str] = (),
        titles: Sequence[str] = (),
        *,
        fullness: Sequence[float] | None = None,
    ) -> None:
        """Filled boxes, dashed without colours; `fullness` is their opacity.

        `boxes` is [N, 4]: left, bottom, right and top of each.
        """
        from matplotlib.collections import PolyCollection

        corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)[:, [[0, 1], [0, 3], [2, 3], [2, 1]]]
        faces = zip(colours, fullness or [1.0] * len(colours), strict=True)
        drawn = PolyCollection(
            list(corners),
            # what is quite transparent has no title on the page
            facecolors=[(light(colour), max(full, 1e-3)) for colour, full in faces] or "none",
            edgecolors="none" if colours else light("line"),
            linestyles="solid" if colours else (0, (2, 2)),
            linewidths=1.0,
            transform=self._transform,
        )
        self._insert(drawn, titles)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        colour: str,
        align: Align = "center",
        *,
        size: float = 11.5,
        shift: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Words at a point, vertically centred, moved by `shift` pixels to the right and up."""
        right, up = self._transform.transform((x, y)) + shift
        style = {"color": light(colour), "ha": align, "va": "center", "fontsize": size, "parse_math": False}
        self._figure.text(right, up, words, style, transform=None)

    def _line(self, x: npt.ArrayLike, y: npt.ArrayLike, titles: Sequence[str]) -> Line2D:
        from matplotlib.lines import Line2D

        drawn = Line2D(np.asarray(x), np.asarray(y), transform=self._transform)
        self._insert(drawn, titles)
        return drawn

    def _insert(self, artist: Artist, titles: Sequence[str]) -> None:
        self._figure.add_artist(artist)
        if titles:
            name = f"title-{len(self._titles)}"
            artist.set_gid(name)
            self._titles[name] = titles


def light(colour: str) -> str:
    """The placeholder that stands for a colour of PALETTE until the chart is written."""
    return PALETTE[colour][0]


def fullness(value: float) -> float:
    """How full the colour of a value of size 0 to 1 is."""
    return float(abs(value) ** FAINT)


def _shapes(root: ET.Element, titles: dict[str, Sequence[str]]) -> Iterator[ET.Element]:
    """Paths, circles and texts of matplotlib's SVG, without its groups, definitions and fonts."""
    defined = {shape: shape for defs in root.iter(f"{_SVG}defs") for shape in defs.iter()}
    # the only marker is a circle, whose path begins at "M 0 radius"
    radii = {f"#{shape.get('id')}": shape.get("d", "").split()[2] for shape in defined if shape.get("d")}
    drawn = {f"{_SVG}{tag}" for tag in ("path", "use", "text")}
    titled: dict[ET.Element, str] = {}
    for group in root.iter(f"{_SVG}g"):
        found = [one for one in group.iter() if one.tag in drawn and one not in defined]
        titled |= dict(zip(found, titles.get(group.get("id", ""), ()), strict=False))
    for one in root.iter():
        if one.tag not in drawn or one in defined:
            continue
        if one.tag == f"{_SVG}use":
            circle = {"cx": one.get("x", ""), "cy": one.get("y", ""), "r": radii[one.get(_LINK, "")]}
            shape = ET.Element("circle", {name: _rounded(place) for name, place in circle.items()})
        elif one.tag == f"{_SVG}path":
            shape = ET.Element("path", {"d": " ".join(_rounded(one.get("d", "")).split())})
        else:
            shape = ET.Element("text", {name: _rounded(one.get(name, "")) for name in ("x", "y")})
            shape.text = one.text
        style = re.sub(r"font-family: [^;]*;? ?", "", one.get("style", ""))
        shape.set("style", re.sub(r"#[0-9a-f]{6}", lambda found: _VARIABLES.get(found[0], found[0]), style))
        if one in titled:
            ET.SubElement(shape, "title").text = titled[one]
        yield shape


def _rounded(numbers: str) -> str:
    return re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), numbers)
