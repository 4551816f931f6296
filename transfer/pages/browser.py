"""metrics/report.html: report.md for a browser, in one file that needs no network, with settings to
sort, curves to compare and test images to look through.

The words, tables and charts are those of report.md; report.html.j2, report.css and report.js add
the rest.
"""

import base64
import hashlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Self

import matplotlib
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from matplotlib.figure import Figure

from transfer.evidence.found import Choice, Evidence
from transfer.evidence.scores import WORDS
from transfer.files import Fields
from transfer.images import packed
from transfer.images.audit import Audit
from transfer.pages import figures, gallery, recommendation
from transfer.pages.gallery import Gallery
from transfer.params import Params
from transfer.templates import render
from transfer.training.record import curve

ROOM = 8_000_000
"""Bytes of all thumbnails together, so that the page stays below 10 MB. Data sets share it by their
test images."""
PHOTOGRAPHS = {"disagreements": "disagreeing", "label_errors": "suspected", "duplicates": "leaked"}
"""The pictures of report.md in whose place the gallery shows all such images, by what it calls
them."""
COLOURS = {figures.INK: "ink", figures.QUIET: "quiet", figures.BAND: "band", "#d1d9e0": "line"}
"""Those of charts that are lighter on a dark page."""


class Curve(Fields):
    """A setting's accuracy on the test images after each epoch, mean over the seeds."""

    setting: str
    init: str
    accuracy: list[float]

    @classmethod
    def mean_of(cls, choice: Choice, seeds: list[int]) -> Self:
        curves = [curve(choice.run(choice.init, seed)) for seed in seeds]
        means = [fmean(one.test_accuracy for one in epoch) for epoch in zip(*curves, strict=True)]
        rounded = [round(mean, 4) for mean in means]
        return cls(setting=choice.label, init=choice.init, accuracy=rounded)


class Line(Fields):
    """A row of the table of settings. computation: of a run, in multiples of the recommended
    one's."""

    choice: Choice
    computation: float
    curve: Curve


class Part(Fields):
    """A data set. measured: the words for what its settings are chosen by. lines: the recommended
    setting first."""

    dataset: str
    title: str
    measured: str
    lines: list[Line]
    gallery: Gallery

    @classmethod
    def collect(
        cls,
        name: str,
        study: Params,
        evidence: Evidence,
        audit: Audit,
        costs: dict[str, dict[str, int]],
    ) -> Self:
        """costs: as preflight.costs has them."""
        seeds = study.grid.seed
        choices = [choice for choice in evidence.choices if choice.dataset == name]
        data = packed.load(f"data/packed/{name}", seeds[0])
        sizes = {choice.dataset: choice.n_test for choice in evidence.choices}
        room = ROOM * sizes[name] // sum(sizes.values())
        taken = recommendation.relative(choices, seeds[0], costs)
        return cls(
            dataset=name,
            title=study.datasets[name].title,
            measured=WORDS[evidence.measures[name]],
            lines=[
                Line(choice=choice, computation=cost, curve=Curve.mean_of(choice, seeds))
                for choice, cost in zip(choices, taken, strict=True)
            ],
            gallery=gallery.collect(name, study, evidence, audit, data, room),
        )


def write(page: str, parts: Sequence[Part], pictures: dict[str, Figure]) -> str:
    """The text of report.html. page: report.md's. pictures: those of metrics/figures, by name."""
    style, script = (
        Path(__file__).with_name(name).read_text(encoding="utf-8")
        for name in ("report.css", "report.js")
    )
    heading, _, rest = page.partition("\n## Answers\n")
    line: Any = {"curve": True, "choice": {"share"}}
    wanted: Any = {"dataset": True, "gallery": True, "lines": {"__all__": line}}
    data = [part.model_dump(mode="json", include=wanted) for part in parts]
    return render(
        Path(__file__).with_name("report.html.j2"),
        about=html(heading.partition("\n\n")[2], {}),
        body=html("## Answers\n" + rest, pictures),
        parts=parts,
        data=Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")),
        style=Markup(style),
        script=Markup(script),
        # The script itself and no other, and nothing from elsewhere, runs or is loaded.
        allowed=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def html(markdown: str, pictures: dict[str, Figure]) -> Markup:
    """Of markdown with tables and HTML; its pictures are charts, or lead to the gallery."""
    made = MarkdownIt("commonmark").enable("table")

    def image(_: Any, tokens: Sequence[Token], place: int, *__: Any) -> str:
        name = Path(str(tokens[place].attrs["src"])).stem
        kind, _, dataset = name.partition("-")
        words = Markup.escape(tokens[place].content)
        if kind in PHOTOGRAPHS:
            return f'<a href="#gallery/{Markup.escape(dataset)}/{PHOTOGRAPHS[kind]}">{words}</a>'
        chart = drawn(pictures[name]) if name == "contact_sheet" else vector(pictures[name], name)
        return f'<span class="chart" role="img" aria-label="{words}" tabindex="0">{chart}</span>'

    made.add_render_rule("image", image)
    opened = '<div class="scroll" role="region" aria-label="table" tabindex="0"><table>'
    made.add_render_rule("table_open", lambda *_: opened)
    made.add_render_rule("table_close", lambda *_: "</table></div>")
    return Markup(made.render(markdown))


def vector(figure: Figure, name: str) -> str:
    """The figure as SVG whose text and lines follow the page's colours; equal figures are equal
    text, since digits that processors may round differently are left out."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    return re.sub(r"<[^>]*>", lambda tag: _restyled(tag[0]), text)


def _restyled(tag: str) -> str:
    tag = re.sub(r' id="[a-zA-Z.]+_\d+"', "", tag)
    tag = re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", tag)
    for colour, variable in COLOURS.items():
        tag = tag.replace(colour, f"var(--{variable})")
    return tag.replace("stroke: #ffffff", "stroke: var(--paper)")


def drawn(figure: Figure) -> str:
    """The figure as pixels."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'
