"""The study's figures. Accuracies, gains and confidences are fractions of 1.

All are 9 inches wide, so that their 8 points are about 8 points in a README 900 pixels wide.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import cycle, product
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, PercentFormatter

from transfer.evidence.found import Row
from transfer.evidence.stats import Difference
from transfer.files import replacing
from transfer.pages.examples import Disagreement, Twin
from transfer.runs import DEFAULT, label, short

Printed = dict[str, dict[tuple[str, float, str], tuple[float, float]]]

WIDTH, DPI = 9.0, 150  # inches; pixels an inch
SMALL, NORMAL, LARGE = 8, 9, 11  # points
INK, QUIET, RULE, BAND = "#1f2328", "#59636e", "#d1d9e0", "#f6f8fa"
# Okabe and Ito's colours, which the colour-blind tell apart.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY = "#CC79A7", "#56B4E9"

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, and has ✓ and ✗
    "font.size": SMALL,
    "text.color": INK,
    "text.parse_math": False,  # a name may hold a $
    "axes.titlesize": NORMAL,
    "axes.titlelocation": "left",
    "axes.labelsize": SMALL,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.axisbelow": True,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "figure.facecolor": "white",
    "figure.dpi": DPI,
}
styled = matplotlib.rc_context(STYLE)


def save(figure: Figure, path: str | Path) -> None:
    """Write a PNG. Equal figures are equal bytes under the same matplotlib and Pillow."""
    with matplotlib.rc_context(STYLE), replacing(path) as part:
        figure.savefig(part, format="png", dpi=DPI, metadata={"Software": None})


def _unique(values: Iterable[Any]) -> list[Any]:
    """In the order they first come."""
    return list(dict.fromkeys(values))


@cache
def _length(words: str, size: float = SMALL) -> float:
    """Inches of a line of text of that size in points."""
    font = FontProperties(size=size)
    return RendererAgg(1, 1, DPI).get_text_width_height_descent(words, font, False)[0] / DPI


def _wrap(words: str, width: float, size: float = SMALL) -> list[str]:
    """Lines of at most `width` inches: as few as may be, and then as even."""
    folds = [wrap(words, letters) for letters in range(1, len(words) + 1)]
    fits = [fold for fold in folds if all(_length(line, size) <= width for line in fold)]
    return min(fits, key=len, default=[])


EDGE, HEAD = 0.12, 0.58  # inches: margin, and what a title with a legend under it takes


def _headed(height: float, title: str, handles: list[Line2D]) -> Figure:
    """A figure with a title and a legend at its top and `height` inches left under them."""
    layout = ConstrainedLayoutEngine(rect=(0.007, 0, 0.986, height / (HEAD + height)))
    figure = Figure((WIDTH, HEAD + height), layout=layout)
    x, y = EDGE / WIDTH, 1 - EDGE / (HEAD + height)
    figure.text(x, y, title, size=LARGE, va="top")
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (x, 1 - 0.34 / (HEAD + height))}
    figure.legend(handles=handles, ncols=len(handles), borderpad=0, borderaxespad=0, **place)
    return figure


def _settle(figure: Figure) -> None:
    """Lay out once and for all."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for panel in figure.axes:
        # The layout's last digits differ from time to time, and some pixels with them.
        panel.set_position(np.round(panel.get_position().bounds, 6))


# Transfer beside its baseline.

# Start → where in its row (up is negative), colour, words.
STARTS = {
    "pretrained": (-0.15, BLUE, "transfer"),
    "scratch": (0.15, ORANGE, "baseline, from random weights"),
}
DIAMOND: dict[str, Any] = {"marker": "D", "mfc": "none", "ms": 5.5, "mew": 0.8}


@styled
def gains(
    rows: list[Row], n_train: dict[str, int], titles: dict[str, str], printed: Printed
) -> Figure:
    """Test accuracy of transfer and baseline in every setting, a panel for each data set.

    n_train: data set → training images. printed: data set → (backbone, lr, freezing) → the
    report's (accuracy, baseline), where it has them. Panels and settings come in the order of the
    rows.
    """
    datasets = _unique(row.dataset for row in rows)
    settings = _unique(row.setting for row in rows)
    columns = min(2, len(datasets))
    lines = -(-len(datasets) // columns)
    title = "Test accuracy of every setting, with 95 % intervals"
    handles = _gain_handles(rows, any(printed.get(dataset) for dataset in datasets))
    figure = _headed(0.25 + lines * (0.65 + 0.25 * len(settings)), title, handles)
    figure.supxlabel("test accuracy", size=SMALL)
    labels = [label(*values) for values in settings]
    room = (WIDTH - max(map(_length, labels))) / columns - 0.25
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, dataset in zip(panels, datasets, strict=False):
        report = printed.get(dataset, {})
        own = [row for row in rows if row.dataset == dataset]
        for row in own:
            theirs = report.get(row.setting[:3]) if row.recipe == DEFAULT else None
            _gain(panel, settings.index(row.setting), row, theirs)
        amount = f"{n_train[dataset]} training and {own[0].n_test} test images"
        panel.set_title("\n".join([*_wrap(titles[dataset], room, NORMAL), amount]))
    _gain_axes(panels, labels)
    for panel in panels[len(datasets) :]:
        panel.remove()
    _settle(figure)
    return figure


def _gain(panel: Axes, place: int, row: Row, report: tuple[float, float] | None) -> None:
    """A row: each start's mean and interval, what joins them, and the report's values."""
    means: list[float] = []
    ys: list[float] = []
    spread = len(row.arms) == len(STARTS)
    for column, (start, (offset, colour, _)) in enumerate(STARTS.items()):
        if start in row.arms:
            found, y = row.arms[start].chosen, place + offset * spread
            means, ys = [*means, found.mean], [*ys, y]
            panel.plot([found.low, found.high], [y, y], color=colour, lw=1.5, alpha=0.5)
            panel.plot(found.mean, y, "o", color=colour, ms=4.5, zorder=3)
            if report:
                panel.plot(report[column], y, color=colour, zorder=4, **DIAMOND)
    panel.plot(means, ys, color=QUIET, lw=0.5, zorder=1)


def _gain_axes(panels: np.ndarray, labels: list[str]) -> None:
    for panel in panels:
        panel.set_yticks(range(len(labels)), labels)
        panel.set_ylim(len(labels) - 0.5, -0.5)
        panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        panel.tick_params(labelbottom=True)
        panel.grid(axis="x")
        for place in range(0, len(labels), 2):
            panel.axhspan(place - 0.5, place + 0.5, color=BAND, lw=0, zorder=0)


def _gain_handles(rows: list[Row], report: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], color=colour, marker="o", ms=4.5, lw=1.5, label=words)
        for start, (_, colour, words) in STARTS.items()
        if any(start in row.arms for row in rows)
    ]
    if report:
        handles.append(Line2D([], [], color=QUIET, lw=0, label="as the report has it", **DIAMOND))
    return handles


# Gain against similarity.

MARKERS = "os^Dvp"
COLOURS = [BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, INK]
LEADER: dict[str, Any] = {"arrowstyle": "-", "color": QUIET, "lw": 0.5, "shrinkA": 0, "shrinkB": 4}
LABEL: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 2, "arrowprops": LEADER}
# Where a label may stand: typographic points away, and in what direction, right first.
TURNS = [0, 180, 90, 270, *range(15, 360, 15)]
PLACES = list(product((5, 10, 16, 24, 34, 46), np.radians(TURNS)))


@dataclass(frozen=True)
class Point:
    """A data set and backbone: what transfer gains, and how similar it is, by titles of measures
    that name their units."""

    dataset: str
    backbone: str
    gain: Difference
    measures: dict[str, float]


@styled
def similarity(points: list[Point], titles: dict[str, str]) -> Figure:
    """Gain from transfer against the similarity of source and target, a panel for each measure.

    One point for each data set and backbone. Panels come in the order of the measures.
    """
    measures = _unique(title for point in points for title in point.measures)
    datasets = _unique(point.dataset for point in points)
    marker = dict(zip(_unique(point.backbone for point in points), cycle(MARKERS), strict=False))
    colour = dict(zip(datasets, cycle(COLOURS), strict=False))
    handles = [
        Line2D([], [], color=QUIET, marker=sign, ms=6, lw=0, label=short(backbone))
        for backbone, sign in marker.items()
    ]
    figure = _headed(3.8, "Gain from transfer, by similarity of source and target", handles)
    note = "Gain: accuracy less baseline, mean over settings, with its 95 % interval."
    figure.supxlabel(f"{len(datasets)} data sets. {note}", size=SMALL, color=QUIET)
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False).ravel()
    for panel, measure in zip(panels, measures, strict=True):
        _similarity_axes(panel)
        panel.set_xlabel("\n".join(_wrap(measure, WIDTH / len(measures) - 0.5)))
        for point in _measured(points, measure):
            style: dict[str, Any] = {
                "marker": marker[point.backbone],
                "color": colour[point.dataset],
            }
            _similarity_point(panel, point.measures[measure], point, style)
    panels[0].set_ylabel("gain, percentage points")
    _settle(figure)  # the labels' places hold while all else stays
    for panel, measure in zip(panels, measures, strict=True):
        _label(panel, measure, _measured(points, measure), titles)
    return figure


def _measured(points: list[Point], measure: str) -> list[Point]:
    return [point for point in points if measure in point.measures]


def _similarity_axes(panel: Axes) -> None:
    panel.margins(0.3, 0.1)
    panel.locator_params(axis="x", nbins=4)  # as many as long numbers leave room for
    panel.grid()
    panel.axhline(0, color=QUIET, lw=0.8)
    panel.yaxis.set_major_formatter(FuncFormatter(lambda gain, _: _signed(100 * gain)))


def _signed(value: float) -> str:
    return f"{value:+.0f}".replace("-", "−") if round(value) else "0"


def _similarity_point(panel: Axes, x: float, point: Point, style: dict[str, Any]) -> None:
    panel.plot([x, x], [point.gain.low, point.gain.high], color=style["color"], lw=1.5, alpha=0.5)
    panel.plot(x, point.gain.value, **style, ms=6, mec="white", mew=0.5, zorder=3)


def _label(panel: Axes, measure: str, points: list[Point], titles: dict[str, str]) -> None:
    """Each point's data set beside it, clear of the edge, points and other labels if it can be.

    Of such places, one that is near and covers little of the intervals.
    """
    pixels = panel.figure.dpi / 72  # a point's
    gaps, turns = (column[:, None] for column in np.transpose(PLACES))
    solid, thin = [], []
    for point in points:
        x = point.measures[measure]
        ends = [(x, y) for y in (point.gain.value, point.gain.low, point.gain.high)]
        at, low, high = panel.transData.transform(ends)
        solid.append((at - 4 * pixels, at + 4 * pixels))
        thin.append((low - pixels, high + pixels))
    for point in points:
        at = (point.measures[measure], point.gain.value)
        words = "\n".join(_wrap(titles[point.dataset], 1.05))
        label = panel.annotate(words, at, (0, 0), textcoords="offset points", **LABEL)
        half = np.array(Text.get_window_extent(label).size) / 2 / pixels
        offsets = (gaps + half) * np.hstack([np.cos(turns), np.sin(turns)])
        boxes = np.stack([offsets - half, offsets + half], axis=1) * pixels
        boxes += panel.transData.transform(at)
        bad = _common(boxes, solid) - _common(boxes, [panel.bbox.get_points()])
        best = np.lexsort((_common(boxes, thin) + 5 * gaps[:, 0], bad.round()))[0]
        label.set_position(offsets[best])
        solid.append(boxes[best])


def _common(boxes: np.ndarray, others: list) -> np.ndarray:
    """Pixels² of each box that others cover, each counted: lower left and upper right [n, 2, 2]."""
    low, high = np.moveaxis(np.array(others), 1, 0)
    sides = np.minimum(boxes[:, None, 1], high) - np.maximum(boxes[:, None, 0], low)
    return sides.clip(min=0).prod(axis=2).sum(axis=1)


# Images. x and y are inches from the figure's upper left corner.

GAP, LINE = 0.05, 0.17  # inches: gap within a pair, height of a line of small text


@styled
def disagreements(examples: list[Disagreement], title: str) -> Figure | None:
    """Test images that transfer and baseline disagree on, four a row; None without any."""
    if not examples:
        return None
    pitch = (WIDTH - EDGE) / 4
    side = pitch - EDGE
    height = side + 4 * LINE + 2 * EDGE
    figure, top = _sheet(title, -(-len(examples) // 4) * height)
    for i, example in enumerate(examples):
        x, y = EDGE + i % 4 * pitch, top + i // 4 * height
        _write(figure, x, y, _fit(example.name, side), QUIET)
        _show(figure, x, y + LINE, side, example.image, "SW")
        y += LINE + side + 0.04
        truth = example.truth
        _write(figure, x, y, "truth: " + _fit(truth, side - _length("truth: ")))
        said = {"transfer": example.transfer, "baseline": example.baseline}
        for line, (start, prediction) in enumerate(said.items(), start=1):
            colour, words = _verdict(start, *prediction, truth, side)
            _write(figure, x, y + line * LINE, words, colour)
    return figure


def _verdict(
    start: str, label: str, confidence: float, truth: str, width: float
) -> tuple[str, str]:
    """(colour, words) of a prediction, right or wrong."""
    sign, colour = ("✓", INK) if label == truth else ("✗", VERMILION)
    before, after = f"{sign} {start}: ", f" {100 * confidence:.0f} %"
    return colour, before + _fit(label, width - _length(before + after)) + after


@styled
def duplicates(pairs: list[Twin], title: str) -> Figure | None:
    """Test images beside their twins in training, three pairs a row; None without any."""
    if not pairs:
        return None
    pitch = (WIDTH - EDGE) / 3
    side = (pitch - GAP) / 2 - EDGE
    height = side + LINE + 2 * EDGE
    figure, top = _sheet(title, -(-len(pairs) // 3) * height)
    for i, pair in enumerate(pairs):
        sides = (pair.train_name, pair.train), (pair.test_name, pair.test)
        for column, (name, image) in enumerate(sides):
            x, y = EDGE + i % 3 * pitch + column * (side + GAP), top + i // 3 * height
            _write(figure, x, y, _fit(name, side), QUIET)
            _show(figure, x, y + LINE + 0.02, side, image, "NW")
    return figure


def _sheet(title: str, height: float) -> tuple[Figure, float]:
    """A figure with a title over `height` inches of room, and where the room starts."""
    lines = _wrap(title, WIDTH - 2 * EDGE, LARGE)
    top = 2 * EDGE + 0.2 * len(lines)
    figure = Figure((WIDTH, top + height))
    x, y = EDGE / WIDTH, 1 - EDGE / (top + height)
    figure.text(x, y, "\n".join(lines), size=LARGE, va="top")
    return figure, top


def _write(figure: Figure, x: float, y: float, words: str, colour: str = INK) -> None:
    """A line of small text."""
    figure.text(x / WIDTH, 1 - (y + 0.7 * LINE) / figure.get_figheight(), words, color=colour)


def _show(figure: Figure, x: float, y: float, side: float, image: np.ndarray, corner: str) -> None:
    """The image, whole, in that corner (a point of the compass) of a square."""
    height = figure.get_figheight()
    panel = figure.add_axes((x / WIDTH, 1 - (y + side) / height, side / WIDTH, side / height))
    panel.imshow(image)
    panel.set_anchor(corner)
    panel.set_axis_off()


def _fit(words: str, width: float) -> str:
    """The words on one line, or as much of their start and end as fits into `width` inches."""
    words = " ".join(words.split())

    def cut(left_out: int) -> str:
        kept = len(words) - left_out
        return words[: (kept + 1) // 2] + "…" * bool(left_out) + words[len(words) - kept // 2 :]

    fewest = bisect_left(range(len(words)), True, key=lambda n: _length(cut(n)) <= width)
    return cut(fewest)
