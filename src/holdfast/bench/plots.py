"""The one look of every plot: arms named where they are drawn, ours in blue, what is required as a line.

A plot is a grid of panels, each described by data (``Bars`` or ``Lines``) and drawn by ``draw``; ``bars`` and ``lines``
are for the common case of one panel. Colours are those of Okabe and Ito, which the colour blind can tell apart; each
also has a marker, a dash or a hatch of its own, so that a page printed in grey still reads.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.errors import InputError, MissingExtraError

OURS = "#0072B2"
OTHER = "#A9B1BA"
REQUIRED = "#D55E00"
INK = "#22272E"
FAINT = "#66707C"
GRID = "#E6E9ED"

CYCLE: tuple[tuple[str, str, str], ...] = (
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", ":"),
    ("#E69F00", "v", "--"),
    ("#22272E", "X", ":"),
    ("#56B4E9", "P", "-"),
)
"""Colour, marker and dash of the first, second, ... curve; ours takes the first."""

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "axes.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "hatch.linewidth": 0.8,
}


@dataclass(frozen=True, slots=True)
class Bars:
    """One metric of several arms, as horizontal bars in the order given.

    Fields
        values: arm to value; NaN draws no bar and the word "none".
        ours: the arms drawn in blue; ``bounds`` are drawn hollow (upper bounds), ``controls`` hatched (meant to fail).
        required: the margin, drawn as a line; ``at_least`` says on which side of it a bar should end.
        errors: arm to (low, high), an interval around its value.
        percent: print and scale the values as percentages.
        limits: the axis' ends; by default from zero to a little beyond the longest bar.
    """

    values: Mapping[str, float]
    title: str = ""
    label: str = ""
    ours: Collection[str] = ()
    bounds: Collection[str] = ()
    controls: Collection[str] = ()
    required: float | None = None
    at_least: bool = True
    errors: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    percent: bool = False
    limits: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Lines:
    """Several curves over one axis, each named at its end.

    Fields
        curves: name to (xs, ys), equally long.
        ours: the curves drawn heavier, in the first colours.
        points: the curves drawn as points without a line, for measurements that a fitted curve runs through.
        required: a horizontal line, the margin; ``at_least`` says on which side of it a curve should lie.
        marks: x to name, drawn as faint upright lines.
    """

    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    title: str = ""
    x_label: str = ""
    y_label: str = ""
    ours: Collection[str] = ()
    points: Collection[str] = ()
    required: float | None = None
    at_least: bool = True
    marks: Mapping[float, str] = field(default_factory=dict)
    log_x: bool = False
    log_y: bool = False
    percent: bool = False
    limits: tuple[float, float] | None = None


Panel = Bars | Lines


def bars(path: Path, values: Mapping[str, float], *, title: str, subtitle: str = "", **options: Any) -> None:
    """One panel of bars as an image file; ``options`` are fields of ``Bars``. Raises as ``draw`` does."""
    draw(path, [Bars(values, **options)], title=title, subtitle=subtitle)


def lines(
    path: Path,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    subtitle: str = "",
    **options: Any,
) -> None:
    """One panel of curves as an image file; ``options`` are fields of ``Lines``. Raises as ``draw`` does."""
    draw(path, [Lines(curves, **options)], title=title, subtitle=subtitle)


def draw(path: Path, panels: Sequence[Panel], *, title: str, subtitle: str = "", columns: int | None = None) -> None:
    """Draw panels side by side into an image file (160 dots per inch; the ending names the format).

    ``title`` says in words what the reader should see; ``subtitle`` names data, scale and seeds. Raises
    MissingExtraError without matplotlib, InputError without panels.
    """
    if not panels:
        raise InputError("a plot needs at least one panel")
    try:
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise MissingExtraError("plots need matplotlib: pip install 'holdfast[plot]'") from error
    columns = columns or min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    heights = [max(_height(panel) for panel in panels[row * columns : (row + 1) * columns]) for row in range(rows)]
    width = 7.4 if columns == 1 else 4.5 * columns
    head = 0.62 + 0.24 * subtitle.count("\n") if subtitle else 0.42
    tall = sum(heights) + head
    with matplotlib.rc_context(_STYLE):
        layout = ConstrainedLayoutEngine(rect=(0.008, 0.01, 0.984, 0.98 - head / tall), wspace=0.04, hspace=0.06)
        figure = Figure(figsize=(width, tall), dpi=160, facecolor="white", layout=layout)
        figure.text(0.012, 1 - 0.13 / tall, title, fontsize=12.5, fontweight="bold", va="top")
        if subtitle:
            figure.text(0.012, 1 - 0.4 / tall, subtitle, fontsize=9, color=FAINT, va="top", linespacing=1.4)
        grid = figure.add_gridspec(rows, columns, height_ratios=heights)
        for index, panel in enumerate(panels):
            axes = figure.add_subplot(grid[index // columns, index % columns])
            axes.spines[["top", "right"]].set_visible(False)
            if panel.title:
                axes.set_title(panel.title, loc="left", fontsize=10, fontweight="bold", pad=16 if panel.required else 8)
            if isinstance(panel, Bars):
                _draw_bars(axes, panel)
            else:
                _draw_lines(axes, panel)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Software": None} if path.suffix == ".png" else None)


def _height(panel: Panel) -> float:
    """Inches a panel wants: bars grow with their number, curves have a fixed shape."""
    return 1.15 + 0.31 * len(panel.values) if isinstance(panel, Bars) else 3.3


def _number(value: float, percent: bool) -> str:
    if math.isnan(value):
        return "none"
    if percent:
        return f"{100 * value:.1f}%".replace(".0%", "%")
    if value == 0 or 0.01 <= abs(value) < 10_000:
        return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:.3g}"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")


def _draw_bars(axes: Any, panel: Bars) -> None:
    names, values = list(panel.values), [float(value) for value in panel.values.values()]
    edges = [bound for name in names for bound in panel.errors.get(name, ())]
    finite = [value for value in [*values, *edges, panel.required] if value is not None and math.isfinite(value)]
    low, high = panel.limits or (min(0.0, *finite, 0.0), max(*finite, 0.0, 0.0))
    span = (high - low) or 1.0
    for row, (name, value) in enumerate(zip(names, values, strict=True)):
        mine, bound, control = name in panel.ours, name in panel.bounds, name in panel.controls
        if math.isfinite(value):
            axes.barh(
                row,
                value,
                height=0.62,
                color=OURS if mine else "white" if bound or control else OTHER,
                edgecolor=OURS if mine else FAINT if bound or control else OTHER,
                hatch="////" if control else None,
                linewidth=1.0,
                zorder=2,
            )
        interval = panel.errors.get(name)
        if interval is not None:
            axes.plot(interval, [row, row], color="white", linewidth=3.2, solid_capstyle="butt", zorder=3)
            axes.plot(interval, [row, row], color=INK, linewidth=1.3, solid_capstyle="butt", zorder=3.1)
        end = max(value, interval[1] if interval else value) if math.isfinite(value) else 0.0
        axes.text(
            max(end, low) + 0.015 * span,
            row,
            _number(value, panel.percent),
            va="center",
            fontsize=9,
            fontweight="bold" if mine else "normal",
            color=OURS if mine else INK,
            zorder=4,
            bbox={"boxstyle": "square,pad=0.08", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )
    axes.set_yticks(range(len(names)), names)
    for tick, name in zip(axes.get_yticklabels(), names, strict=True):
        tick.set_color(OURS if name in panel.ours else INK)
        tick.set_fontweight("bold" if name in panel.ours else "normal")
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.set_xlim(low, high + 0.16 * span if panel.limits is None else high)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(low < 0)
    axes.grid(axis="x", color=GRID, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.set_xlabel(panel.label)
    if panel.percent:
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    if panel.required is not None:
        axes.axvline(panel.required, color=REQUIRED, linewidth=1.3, linestyle=(0, (4, 2)), zorder=3.5)
        sign = "≥" if panel.at_least else "≤"
        axes.annotate(
            f"required {sign} {_number(panel.required, panel.percent)}",
            (panel.required, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="right" if panel.required > low + 0.6 * span else "left",
            fontsize=8.5,
            color=REQUIRED,
        )


def _draw_lines(axes: Any, panel: Lines) -> None:
    order = [name for name in panel.curves if name in panel.ours] + [n for n in panel.curves if n not in panel.ours]
    looks = {name: CYCLE[index % len(CYCLE)] for index, name in enumerate(order)}
    if panel.log_x:
        axes.set_xscale("log")
    if panel.log_y:
        axes.set_yscale("log")
    for name, (xs, ys) in panel.curves.items():
        colour, marker, dash = looks[name]
        few = len(xs) <= 24
        axes.plot(
            xs,
            ys,
            color=colour,
            linestyle="none" if name in panel.points else dash,
            linewidth=2.4 if name in panel.ours else 1.5,
            marker=marker if few or name in panel.points else None,
            markersize=4.6,
            markeredgecolor="white",
            markeredgewidth=0.6,
            zorder=3 if name in panel.ours else 2,
        )
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    measured = sorted({float(x) for xs, _ in panel.curves.values() for x in xs})
    if panel.log_x and len(measured) <= 8:
        axes.set_xticks(measured, [_number(x, percent=False) for x in measured])
        axes.set_xticks([], minor=True)
    if panel.limits is not None:
        axes.set_ylim(*panel.limits)
    if panel.percent:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    for x, name in panel.marks.items():
        axes.axvline(x, color=GRID, linewidth=1.2, zorder=1)
        axes.annotate(
            name,
            (x, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -2),
            textcoords="offset points",
            va="top",
            fontsize=8.5,
            color=FAINT,
        )
    if panel.required is not None:
        axes.axhline(panel.required, color=REQUIRED, linewidth=1.3, linestyle=(0, (4, 2)), zorder=2.5)
        sign = "≥" if panel.at_least else "≤"
        axes.annotate(
            f"required {sign} {_number(panel.required, panel.percent)}",
            (0, panel.required),
            xycoords=("axes fraction", "data"),
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=8.5,
            color=REQUIRED,
        )
    _name_ends(axes, panel, {name: look[0] for name, look in looks.items()})


def _name_ends(axes: Any, panel: Lines, colours: Mapping[str, str]) -> None:
    """Write each curve's name to the right of its last point, pushed apart so that no two overlap."""
    axes.get_xlim(), axes.get_ylim()  # settles the limits that the transform below is made of
    to_share = axes.transScale + axes.transLimits
    ends = []
    for name, (xs, ys) in panel.curves.items():
        last = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
        if last:
            ends.append((float(to_share.transform(last[-1])[1]), name))
    ends.sort()
    gap = 0.062
    heights = [min(max(height, 0.0), 1.0) for height, _ in ends]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + gap)
    over = heights[-1] - 1.0 if heights else 0.0
    if over > 0:
        heights[-1] = 1.0
        for index in range(len(heights) - 2, -1, -1):
            heights[index] = min(heights[index], heights[index + 1] - gap)
    for height, (_, name) in zip(heights, ends, strict=True):
        axes.annotate(
            name,
            (1.0, height),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=colours[name],
            fontweight="bold" if name in panel.ours else "normal",
            annotation_clip=False,
        )
