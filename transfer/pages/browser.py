"""metrics/report.html: report.md for a browser, in one file that needs no network, with sortable
settings, learning curves and a gallery of test images.

Its text, tables and charts are those of report.md; report.html.j2, report.css and report.js add
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

from transfer.evidence.records import Choice, Evidence
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
"""Bytes of all thumbnails together, so that the page stays below 10 MB. Data sets share it in
proportion to their test images."""
PHOTOGRAPHS = {"disagreements": "disagreeing", "label_errors": "suspected", "duplicates": "leaked"}
"""A picture of report.md → the gallery's kind of image that takes its place."""
COLOURS = {figures.INK: "ink", figures.QUIET: "quiet", figures.BAND: "band", "#d1d9e0": "line"}
"""The charts' colours that the page's variables replace, for its dark mode."""


class Line(Fields):
    """A row of the table of settings. computation: a run's, relative to the recommended one's.
    accuracies: on the test images after each epoch, means over the seeds."""

    choice: Choice
    computation: float
    accuracies: list[float]


class Part(Fields):
    """A data set. measured: what its settings are chosen by, in words. lines: the recommended
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
        """costs: see transfer.training.preflight."""
        seeds = study.grid.seed
        choices = evidence.ranking(name)
        data = packed.load(f"data/packed/{name}", seeds[0])
        sizes = {choice.dataset: choice.n_test for choice in evidence.choices}
        room = ROOM * sizes[name] // sum(sizes.values())
        relative = recommendation.relative_costs(choices, seeds[0], costs)
        return cls(
            dataset=name,
            title=study.datasets[name].title,
            measured=WORDS[evidence.measures[name]],
            lines=[
                Line(choice=choice, computation=cost, accuracies=mean_curve(choice, seeds))
                for choice, cost in zip(choices, relative, strict=True)
            ],
            gallery=gallery.collect(name, study, evidence, audit, data, room),
        )


def mean_curve(choice: Choice, seeds: list[int]) -> list[float]:
    """Test accuracy after each epoch, mean over the seeds."""
    curves = [curve(run) for run in choice.runs(seeds)]
    return [
        round(fmean(epoch.test_accuracy for epoch in epochs), 4)
        for epochs in zip(*curves, strict=True)
    ]


def write(page: str, parts: Sequence[Part], pictures: dict[str, Figure]) -> str:
    """The text of report.html. page: report.md's text. pictures: those of metrics/figures, by
    name."""
    style, script = (
        Path(__file__).with_name(name).read_text(encoding="utf-8")
        for name in ("report.css", "report.js")
    )
    heading, _, rest = page.partition("\n## Answers\n")
    line: Any = {"accuracies": True, "choice": {"init", "share"}}
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
        # So that the browser runs no other script and loads nothing from elsewhere.
        allowed=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def html(markdown: str, pictures: dict[str, Figure]) -> Markup:
    """The markdown as HTML. Its pictures become charts or links to the gallery."""
    parser = MarkdownIt("commonmark").enable("table")

    def image(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
        name = Path(str(tokens[index].attrs["src"])).stem
        kind, _, dataset = name.partition("-")
        words = Markup.escape(tokens[index].content)
        if kind in PHOTOGRAPHS:
            return f'<a href="#gallery/{Markup.escape(dataset)}/{PHOTOGRAPHS[kind]}">{words}</a>'
        chart = pixels(pictures[name]) if name == "contact_sheet" else vector(pictures[name], name)
        return f'<span class="chart" role="img" aria-label="{words}" tabindex="0">{chart}</span>'

    parser.add_render_rule("image", image)
    opened = '<div class="scroll" role="region" aria-label="table" tabindex="0"><table>'
    parser.add_render_rule("table_open", lambda *_: opened)
    parser.add_render_rule("table_close", lambda *_: "</table></div>")
    return Markup(parser.render(markdown))


def vector(figure: Figure, name: str) -> str:
    """The figure as SVG with the page's colours. Equal figures are equal text: numbers are rounded,
    since processors differ in the last digits."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    return re.sub(r"<[^>]*>", lambda tag: _restyled(tag[0]), text)


def _restyled(tag: str) -> str:
    tag = re.sub(r' id="[a-zA-Z.]+_\d+"', "", tag)
    tag = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", tag)
    for colour, variable in COLOURS.items():
        tag = tag.replace(colour, f"var(--{variable})")
    return tag.replace("stroke: #ffffff", "stroke: var(--paper)")


def pixels(figure: Figure) -> str:
    """The figure as an embedded PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'
