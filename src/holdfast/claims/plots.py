"""The house style of plots lives with the benchmarks."""

from holdfast.bench.plots import Bars, Lines, Panel, bars, draw, lines

__all__ = ["Bars", "Lines", "Panel", "bars", "draw", "lines"]
