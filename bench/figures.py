"""Plots as SVG, made of a result: the same result gives the same bytes."""

import io
import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from bench.labels import colour, label
from bench.mix import UNIFORM, ZIPF
from bench.stats import Spread, spread
from bench.summary import Measured, keys_of, peers_of, rate_of, ratio_of, runs_of

STYLE = {
    "svg.hashsalt": "apiary",
    "svg.fonttype": "none",  # text stays text
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e2e8f0",
    "legend.frameon": False,
}
WIDTH = 9.0
COLUMNS = 2
BAR_INCHES = 0.22
ZIPF_ALPHA = 0.45


Drawing = TypeVar("Drawing", bound=Callable[..., str])


def styled(drawing: Drawing) -> Drawing:
    """A drawing in our style, whatever style is set."""

    @wraps(drawing)
    def styled_drawing(*arguments: Any) -> str:
        with mpl.rc_context(STYLE):
            return drawing(*arguments)

    return cast(Drawing, styled_drawing)


@styled
def throughput(workloads: dict[str, Measured]) -> str:
    """Requests/s: one panel a workload, one bar a peer and kind of keys, with the lowest run and the best."""
    bars = max(sum(len(peers_of(one, keys)) for keys in keys_of(one)) for one in workloads.values())
    height = 0.9 + bars * BAR_INCHES

    def draw(axes: Axes, name: str, workload: Measured) -> None:
        entries = [(peer, keys) for keys in keys_of(workload) for peer in peers_of(workload, keys)]
        rates = [rate_of(runs_of(workload, *entry)) for entry in entries]
        _bars(axes, entries, rates)
        axes.set_title(f"{name}, {workload['clients']} clients", loc="left")
        axes.set_xlabel("requests/s")

    return _panels(list(workloads.items()), draw, height)


def _bars(axes: Axes, entries: Sequence[tuple[str, str]], rates: Sequence[Spread]) -> None:
    places = range(len(entries))
    middles = [rate.median for rate in rates]
    ends = [[rate.median - rate.low for rate in rates], [rate.high - rate.median for rate in rates]]
    drawn = axes.barh(
        places, middles, xerr=ends, color=[colour(peer) for peer, _ in entries], ecolor="#475569", capsize=2
    )
    for bar, (_, keys) in zip(drawn, entries, strict=True):
        bar.set_alpha(ZIPF_ALPHA if keys == ZIPF else 1.0)
    axes.set_yticks(places, [label(peer) + (", hot keys" if keys == ZIPF else "") for peer, keys in entries])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.bar_label(drawn, [f"{middle:,.0f}" for middle in middles], fontsize=8, padding=5)
    axes.margins(x=0.2)


@styled
def ratios(workloads: dict[str, Measured], ours: Sequence[str], peers: Sequence[str]) -> str:
    """How many times a peer's throughput ours is, on a logarithmic scale; left of 1 we lose."""
    figure = Figure(figsize=(WIDTH, 1.2 + 0.34 * len(workloads)), layout="constrained")
    axes = figure.subplots(1, len(ours), sharey=True, squeeze=False)[0]
    names = list(workloads)
    for one, panel in zip(ours, axes, strict=True):
        for peer in peers:
            places = [(ratio_of(workloads[name], peer, UNIFORM, one), place) for place, name in enumerate(names)]
            known = [(ratio, place) for ratio, place in places if ratio is not None]
            if known:
                panel.scatter(*zip(*known, strict=True), color=colour(peer), label=label(peer), s=28, zorder=3)
        panel.set_xscale("log")
        panel.axvline(1.0, color="#334155", linewidth=1)
        panel.set_yticks(range(len(names)), names)
        panel.set_title(f"{label(one)}: times the peer", loc="left")
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
        panel.xaxis.set_minor_formatter(NullFormatter())
    axes[0].invert_yaxis()
    handles = {text: handle for panel in axes for handle, text in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return _svg(figure)


@styled
def latency(workload: Measured) -> str:
    """Median and 99th percentile over the offered rate, from the moment that a request was due."""

    def draw(axes: Axes, part: str, title: str) -> None:
        for peer in dict.fromkeys(run["peer"] for run in workload["open"]):
            runs = [run for run in workload["open"] if run["peer"] == peer]
            rates = sorted({run["rate"] for run in runs})
            seen = [spread([run["measured"][part] / 1000 for run in runs if run["rate"] == rate]) for rate in rates]
            _line(axes, peer, rates, seen)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.minorticks_off()
        offered = sorted({run["rate"] for run in workload["open"]})
        axes.set_xticks(offered, [short(rate) for rate in offered])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_title(title, loc="left")
        axes.set_xlabel("requests offered a second")
        axes.set_ylabel("ms")

    return _panels([("p50_us", "median"), ("p99_us", "99th percentile")], draw, 2.9, legend=True)


@styled
def curve(measured: Measured) -> str:
    """Every value of a curve over its sizes."""
    points = measured["points"]
    names = list(dict.fromkeys(name for point in points for name in point["values"]))

    def draw(axes: Axes, name: str, _: object) -> None:
        sizes = sorted({point["size"] for point in points})
        for peer in dict.fromkeys(point["peer"] for point in points):
            mine = [point for point in points if point["peer"] == peer and name in point["values"]]
            _line(axes, peer, [one["size"] for one in mine], [spread(one["values"][name]) for one in mine])
        if len(sizes) > 1 and sizes[-1] > 10 * max(1, sizes[0]):
            axes.set_xscale("symlog", linthresh=max(1, min(size for size in sizes if size)))
        axes.set_xticks(sizes, [short(size) for size in sizes])
        axes.set_ylim(bottom=0)
        axes.set_title(name.replace("`", ""), loc="left")
        axes.set_xlabel(measured["size"])

    return _panels([(name, None) for name in names], draw, 2.7, legend=True)


def short(size: float) -> str:
    """A number as an axis has room for it."""
    for power, unit in ((1_000_000, "M"), (1_000, "k")):
        if size >= power:
            return f"{size / power:g}{unit}"
    return f"{size:g}"


def _line(axes: Axes, peer: str, places: Sequence[float], seen: Sequence[Spread]) -> None:
    ends = [[one.median - one.low for one in seen], [one.high - one.median for one in seen]]
    middles = [one.median for one in seen]
    axes.errorbar(places, middles, yerr=ends, color=colour(peer), label=label(peer), marker="o", ms=3, capsize=2)


def _panels(
    panels: Sequence[tuple[str, Any]], draw: Callable[[Axes, str, Any], None], height: float, legend: bool = False
) -> str:
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(WIDTH, rows * height + 0.5 * legend), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, panel in zip(grid, panels, strict=False):
        draw(axes, *panel)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    if legend:
        handles, texts = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=3)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    output = io.StringIO()
    FigureCanvasSVG(figure).print_svg(output, metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()) + "\n"
