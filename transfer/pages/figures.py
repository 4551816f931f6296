"""The study's figures. Accuracies, gains and confidences are fractions.

All are 9 inches wide, so that their 8 points are about 8 points in a README 900 pixels wide.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from itertools import cycle
from math import inf
from operator import attrgetter
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from transfer.evidence.calibration import Calibration
from transfer.evidence.published import Published
from transfer.evidence.records import Choice, Row
from transfer.evidence.stats import Difference
from transfer.files import replacing
from transfer.runs import DEFAULT, short

WIDTH, DPI = 9.0, 150  # inches; pixels an inch
SMALL, NORMAL, LARGE = 8, 9, 11  # points
INK, QUIET, BAND = "#1f2328", "#59636e", "#f6f8fa"
# Okabe and Ito's colours, which colour-blind people can tell apart.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY = "#CC79A7", "#56B4E9"

styled = matplotlib.rc_context(fname=Path(__file__).with_name("figures.mplstyle"))


@styled
def save(figure: Figure, path: str | Path) -> None:
    """Write a PNG. Equal figures are equal bytes under the same matplotlib and Pillow."""
    with replacing(path) as part:
        figure.savefig(part, format="png", metadata={"Software": None})


def _unique(values: Iterable[Any]) -> list[Any]:
    """In the order they first come."""
    return list(dict.fromkeys(values))


@cache
def _length(text: str, size: float = SMALL) -> float:
    """The width in inches of a line of text, size in points."""
    font = FontProperties(size=size)
    return RendererAgg(1, 1, DPI).get_text_width_height_descent(text, font, False)[0] / DPI


def _wrap(text: str, width: float, size: float = SMALL) -> list[str]:
    """The fewest lines of at most `width` inches, about equally long."""
    folds = [wrap(text, letters) for letters in range(1, len(text) + 1)]
    fits = [fold for fold in folds if all(_length(line, size) <= width for line in fold)]
    return min(fits, key=len, default=[])


def _fit(text: str, width: float) -> str:
    """The text on one line, with its middle cut out where it is longer than `width` inches."""
    text = " ".join(text.split())

    def cut(left_out: int) -> str:
        kept = len(text) - left_out
        return text[: (kept + 1) // 2] + "…" * bool(left_out) + text[len(text) - kept // 2 :]

    fewest = bisect_left(range(len(text)), True, key=lambda n: _length(cut(n)) <= width)
    return cut(fewest)


def _headed(height: float, title: str, handles: list[Line2D]) -> Figure:
    """A figure of that height in inches, with a title and a legend at its top."""
    figure = Figure((WIDTH, height), layout="constrained")
    place: dict[str, Any] = {"loc": "outside upper left", "alignment": "left"}
    figure.legend(handles=handles, title=title, ncols=5, **place)
    return figure


def _settle(figure: Figure) -> None:
    """Lay out once and round the positions: the layout's last digits, and with them some pixels,
    differ between runs."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for panel in figure.axes:
        panel.set_position(np.round(panel.get_position().bounds, 6))


def _panels(figure: Figure, count: int, shared: bool = False) -> tuple[list[Axes], float]:
    """`count` panels, two a row, and the width of each in inches."""
    columns = min(2, count)
    same: dict[str, Any] = {"sharex": shared, "sharey": shared, "squeeze": False}
    panels = figure.subplots(_rows(count), columns, **same).ravel()
    for spare in panels[count:]:
        spare.remove()
    return list(panels[:count]), WIDTH / columns


def _rows(count: int) -> int:
    """The number of rows of panels."""
    return -(-count // 2)


# Transfer beside its baseline.

# Init → its place in the row (up is negative), colour, words.
INITS = {
    "pretrained": (-0.15, BLUE, "transfer"),
    "scratch": (0.15, ORANGE, "baseline, from random weights"),
}
DIAMOND: dict[str, Any] = {"marker": "D", "mfc": "none", "ms": 5.5, "mew": 0.8}


@styled
def gains(
    rows: list[Row], n_train: dict[str, int], titles: dict[str, str], printed: dict[str, Published]
) -> Figure:
    """Test accuracy of transfer and baseline in every setting, a panel for each data set.

    n_train: data set → training images. printed: data set → the paper's table, if it has one.
    Panels and settings come in the order of the rows.
    """
    datasets = _unique(row.dataset for row in rows)
    settings = {row.hyperparameters: row.label for row in rows}
    title = "Test accuracy of every setting, with 95 % intervals"
    handles = _gain_handles(rows, any(printed.get(dataset) for dataset in datasets))
    figure = _headed(0.85 + _rows(len(datasets)) * (0.65 + 0.25 * len(settings)), title, handles)
    figure.supxlabel("test accuracy", size=SMALL)
    labels = list(settings.values())
    panels, width = _panels(figure, len(datasets), shared=True)
    room = width - max(map(_length, labels)) * width / WIDTH - 0.25
    for panel, dataset in zip(panels, datasets, strict=True):
        paper = printed.get(dataset, {})
        its_rows = [row for row in rows if row.dataset == dataset]
        for row in its_rows:
            papers = paper.get(row.hyperparameters[:3]) if row.recipe == DEFAULT else None
            _gain(panel, list(settings).index(row.hyperparameters), row, papers)
        amount = f"{n_train[dataset]} training and {its_rows[0].n_test} test images"
        panel.set_title("\n".join([*_wrap(titles[dataset], room, NORMAL), amount]))
    _gain_axes(panels, labels)
    _settle(figure)
    return figure


def _gain(panel: Axes, place: int, row: Row, paper: tuple[float, float] | None) -> None:
    """A row: each init's mean and interval, a line that joins them, and the paper's values."""
    means: list[float] = []
    ys: list[float] = []
    spread = len(row.results) == len(INITS)
    for column, (init, (offset, colour, _)) in enumerate(INITS.items()):
        if init in row.results:
            chosen, y = row.results[init].chosen, place + offset * spread
            means, ys = [*means, chosen.mean], [*ys, y]
            panel.plot([chosen.low, chosen.high], [y, y], color=colour, lw=1.5, alpha=0.5)
            panel.plot(chosen.mean, y, "o", color=colour, ms=4.5, zorder=3)
            if paper:
                panel.plot(paper[column], y, color=colour, zorder=4, **DIAMOND)
    panel.plot(means, ys, color=QUIET, lw=0.5, zorder=1)


def _gain_axes(panels: list[Axes], labels: list[str]) -> None:
    for panel in panels:
        panel.set_yticks(range(len(labels)), labels)
        panel.set_ylim(len(labels) - 0.5, -0.5)
        panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        panel.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        panel.tick_params(labelbottom=True)
        panel.grid(axis="x")
        for place in range(0, len(labels), 2):
            panel.axhspan(place - 0.5, place + 0.5, color=BAND, lw=0, zorder=0)


def _gain_handles(rows: list[Row], paper: bool) -> list[Line2D]:
    handles = _init_handles({init for row in rows for init in row.results}, marker="o", ms=4.5)
    if paper:
        handles.append(Line2D([], [], color=QUIET, lw=0, label="in the paper", **DIAMOND))
    return handles


def _init_handles(inits: set[str], **style: Any) -> list[Line2D]:
    return [
        Line2D([], [], color=colour, lw=1.5, label=words, **style)
        for init, (_, colour, words) in INITS.items()
        if init in inits
    ]


# Accuracy by computation.


@styled
def cost(costed: dict[str, list[tuple[Choice, float]]]) -> Figure:
    """Each setting's measure by its training's computation, relative to the recommended one's: a
    panel for each data set, by title. A line joins the settings that no cheaper one equals."""
    choices = [choice for pairs in costed.values() for choice, _ in pairs]
    marker = dict(zip(_unique(choice.backbone for choice in choices), cycle(MARKERS), strict=False))
    handles = _init_handles({choice.init for choice in choices})
    handles += [Line2D([], [], color=QUIET, marker=m, lw=0, label=short(name))
                for name, m in marker.items()]  # fmt: skip
    handles.append(Line2D([], [], color=QUIET, lw=0.8, label="no cheaper setting is as good"))
    title = "Test results of every setting by its training's computation, with 95 % intervals"
    figure = _headed(0.85 + 2.6 * _rows(len(costed)), title, handles)
    figure.supxlabel("floating-point operations, relative to the recommended setting", size=SMALL)
    panels, room = _panels(figure, len(costed))
    for panel, (words, pairs) in zip(panels, costed.items(), strict=True):
        most = max(relative for _, relative in pairs)
        for choice, relative in pairs:
            (offset, colour, _), y = INITS[choice.init], choice.chosen
            x = relative + offset * most / 15  # both inits cost the same
            panel.plot([x, x], [y.low, y.high], color=colour, lw=1.5, alpha=0.5)
            panel.plot(x, y.mean, marker[choice.backbone], color=colour, ms=5, mec="white", mew=0.5)
        _frontier(panel, pairs)
        panel.set_xlim(-0.12 * most, 1.1 * most)  # names stand on the left
        panel.set_xticks([tick for tick in panel.get_xticks() if 0 <= tick <= 1.1 * most])
        panel.margins(y=0.1)
        panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g} ×"))
        panel.set_title("\n".join(_wrap(words, room - 0.5, NORMAL)))
        panel.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        panel.grid(axis="y")
    _settle(figure)
    return figure


def _frontier(panel: Axes, pairs: list[tuple[Choice, float]]) -> None:
    """The settings that no cheaper one equals, joined and named."""
    best, line = -inf, []
    for choice, x in sorted(pairs, key=lambda pair: (pair[1], -pair[0].chosen.mean)):
        if choice.chosen.mean > best:
            best = choice.chosen.mean
            line.append((x, best))
            place: dict[str, Any] = {"xytext": (-7, 3), "textcoords": "offset points"}
            place |= {"ha": "right", "va": "bottom", "size": SMALL, "zorder": 5}
            panel.annotate(choice.label, (x, best), **place)
    panel.step(*zip(*line, strict=True), where="post", color=QUIET, lw=0.8, zorder=1)


# Confusion matrices.


@styled
def confusion(chosen: dict[str, Choice]) -> Figure:
    """A confusion matrix of each data set's recommended setting, by title."""
    figure = Figure((WIDTH, 0.4 + 3.2 * _rows(len(chosen))), layout="constrained")
    figure.suptitle(
        "Share of each class's test images that is taken for each class", x=0.01, ha="left"
    )
    panels, width = _panels(figure, len(chosen))
    room = 0.5 * width
    for panel, (title, choice) in zip(panels, chosen.items(), strict=True):
        words, labels = f"{title}: {choice.label}", [recall.label for recall in choice.recall]
        shares = np.diag([recall.mean for recall in choice.recall])
        for mistake in choice.mistakes:
            if mistake.predicted in labels:
                row = labels.index(mistake.label)
                wrong = sum(m.n for m in choice.mistakes if m.label == mistake.label)
                share = (1 - shares[row, row]) * mistake.n / wrong
                shares[row, labels.index(mistake.predicted)] = share
        panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        panel.set_title("\n".join(_fit(line, room) for line in _wrap(words, room, NORMAL)[:4]))
        names = [_fit(label, 1.0) for label in labels]
        panel.set_xticks(range(len(labels)), names, rotation=90 if len(labels) > 4 else 0)
        panel.set_yticks(range(len(labels)), names)
        panel.set_xlabel("taken for")
        for (y, x), share in np.ndenumerate(shares) if len(labels) <= 10 else ():
            colour = "white" if share > 0.6 else "black"
            panel.text(x, y, f"{100 * share:.0f} %", ha="center", va="center", color=colour)
    _settle(figure)
    return figure


# Calibration.


@styled
def calibration(by_title: dict[str, Calibration]) -> Figure:
    """A reliability diagram for each data set's recommended setting: of test images of similar
    confidence, the share that is right, with and without the temperature."""
    plain = Line2D([], [], color=ORANGE, marker="o", ms=4.5, lw=1.5, label="as trained")
    scaled = Line2D([], [], color=BLUE, marker="s", ms=4.5, lw=1.5, label="with the temperature")
    true = Line2D([], [], color=QUIET, lw=0.8, label="perfect calibration")
    handles = [plain, *[scaled] * any(c.fitted for c in by_title.values()), true]
    title = "Accuracy by confidence, on ten equal groups of test images"
    figure = _headed(0.85 + 3.0 * _rows(len(by_title)), title, handles)
    figure.supxlabel("mean confidence", size=SMALL)
    panels, room = _panels(figure, len(by_title), shared=True)
    for panel, (words, calibrated) in zip(panels, by_title.items(), strict=True):
        panel.plot([0, 1], [0, 1], color=QUIET, lw=0.8)
        lines = [(calibrated.before, plain)]
        if calibrated.fitted:
            lines.append((calibrated.after, scaled))
        for error, style in lines:
            xs, ys = zip(*((bin.confidence, bin.right) for bin in error.bins), strict=True)
            look: dict[str, Any] = {"color": style.get_color(), "marker": style.get_marker()}
            panel.plot(xs, ys, ms=4.5, lw=1.5, mec="white", mew=0.5, **look)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        panel.grid()
        panel.tick_params(labelbottom=True)
        panel.set_title("\n".join(_wrap(words, room - 0.5, NORMAL)))
    _settle(figure)
    return figure


# Accuracy by the number of training images.


@styled
def learning(rows: list[Row], titles: dict[str, str]) -> Figure:
    """The accuracy of each init's best setting at every size: a panel for each data set. titles: of
    the data sets."""
    sizes = sorted({row.images for row in rows}, key=lambda n: inf if isinstance(n, str) else n)
    title = "Test results by the number of training images, with 95 % intervals"
    figure = _headed(3.2, title, _gain_handles(rows, False))
    panels = figure.subplots(1, len(titles), sharey=True, squeeze=False).ravel()
    for panel, (name, words) in zip(panels, titles.items(), strict=True):
        for init, (offset, colour, _) in INITS.items():
            its_rows = [row for row in rows if row.dataset == name and init in row.results]
            best = [
                min(
                    (row.results[init] for row in its_rows if row.images == size),
                    key=attrgetter("rank"),
                ).chosen
                for size in (sizes if its_rows else ())
            ]
            xs = np.arange(len(best)) + offset / 4
            for x, chosen in zip(xs, best, strict=True):
                panel.plot([x, x], [chosen.low, chosen.high], color=colour, alpha=0.5)
            panel.plot(xs, [chosen.mean for chosen in best], "o-", color=colour, ms=4.5)
        panel.set_xticks(range(len(sizes)), list(map(str, sizes)))
        panel.set_title("\n".join(_wrap(words, WIDTH / len(titles) - 0.3, NORMAL)))
        panel.grid(axis="y")
        panel.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    figure.supxlabel("training images of each class", size=SMALL)
    _settle(figure)
    return figure


# Gain against similarity.

MARKERS = "os^Dvp"
COLOURS = [BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, INK]


@dataclass(frozen=True)
class Point:
    """A data set and backbone: what transfer gains, and its similarity by measures' titles."""

    dataset: str
    backbone: str
    gain: Difference
    measures: dict[str, float]


@styled
def similarity(points: list[Point]) -> Figure:
    """Gain from transfer against the similarity of source and target: a panel for each measure,
    with a point for each data set and backbone."""
    measures = _unique(title for point in points for title in point.measures)
    colour = dict(zip(_unique(point.dataset for point in points), cycle(COLOURS), strict=False))
    marker = dict(zip(_unique(point.backbone for point in points), cycle(MARKERS), strict=False))
    signs = [(name, {"color": value, "lw": 1.5}) for name, value in colour.items()]
    signs += [(short(name), {"color": QUIET, "marker": m, "lw": 0}) for name, m in marker.items()]
    handles = [Line2D([], [], label=_fit(name, 1.2), **style) for name, style in signs]
    figure = _headed(4.4, "Gain from transfer, by similarity of source and target", handles)
    note = "Gain: transfer minus baseline, mean over settings, with its 95 % interval."
    figure.supxlabel(f"{len(colour)} data sets. {note}", size=SMALL, color=QUIET)
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False).ravel()
    for panel, measure in zip(panels, measures, strict=True):
        _similarity_axes(panel)
        panel.set_xlabel("\n".join(_wrap(measure, WIDTH / len(measures) - 0.5)))
        for point in points:
            if measure in point.measures:
                x, style = point.measures[measure], {"color": colour[point.dataset]}
                panel.plot([x, x], [point.gain.low, point.gain.high], lw=1.5, alpha=0.5, **style)
                style |= {"marker": marker[point.backbone], "mec": "white"}
                panel.plot(x, point.gain.value, ms=6, mew=0.5, zorder=3, **style)
    panels[0].set_ylabel("gain, percentage points")
    _settle(figure)
    return figure


def _similarity_axes(panel: Axes) -> None:
    panel.margins(0.1)
    panel.locator_params(axis="x", nbins=4)  # long numbers leave no room for more
    panel.grid()
    panel.axhline(0, color=QUIET, lw=0.8)
    panel.yaxis.set_major_formatter(FuncFormatter(lambda gain, _: _signed(100 * gain)))


def _signed(value: float) -> str:
    return f"{value:+.0f}".replace("-", "−") if round(value) else "0"


# Images. x and y are inches from the figure's upper left corner.

EDGE, LINE = 0.12, 0.17  # inches: margin, height of a line of small text


@dataclass(frozen=True)
class Example:
    """An image, uint8 [h, w, 3], under its name and above lines of text with their colours."""

    name: str
    image: np.ndarray
    lines: list[tuple[str, str]] = field(default_factory=list)


@styled
def image_sheet(groups: dict[str, list[Example]], columns: int) -> Figure | None:
    """Images by heading, `columns` in a row; None without images."""
    if not any(groups.values()):
        return None
    pitch = (WIDTH - EDGE) / columns
    below = max(len(example.lines) for group in groups.values() for example in group)
    height = pitch + (1 + below) * LINE + EDGE
    headings = ["\n".join(_wrap(words, WIDTH - 2 * EDGE, LARGE)) for words in groups]
    tops = [2 * EDGE + 0.2 * len(heading.splitlines()) for heading in headings]
    rows = [-(-len(group) // columns) for group in groups.values()]
    figure = Figure((WIDTH, sum(tops) + height * sum(rows)))
    y = 0.0
    for heading, top, group in zip(headings, tops, groups.values(), strict=True):
        _write(figure, EDGE, y + EDGE, heading, INK, LARGE)
        y += top
        for start in range(0, len(group), columns):
            for column, example in enumerate(group[start : start + columns]):
                _show(figure, EDGE + column * pitch, y, pitch - EDGE, example)
            y += height
    return figure


def _show(figure: Figure, x: float, y: float, side: float, example: Example) -> None:
    _write(figure, x, y, _fit(example.name, side), QUIET)
    height, bottom = figure.get_figheight(), y + LINE + side
    panel = figure.add_axes((x / WIDTH, 1 - bottom / height, side / WIDTH, side / height))
    panel.imshow(example.image)
    panel.set_anchor("SW" if example.lines else "NW")
    panel.set_axis_off()
    for line, (text, colour) in enumerate(example.lines):
        _write(figure, x, bottom + 0.04 + line * LINE, _fit(text, side), colour)


def _write(figure: Figure, x: float, y: float, text: str, colour: str, size: float = SMALL) -> None:
    place = x / WIDTH, 1 - y / figure.get_figheight()
    figure.text(*place, text, color=colour, size=size, va="top")
