"""Names of any kind stand on the pages as they are."""

import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import nodes
from markdown_it import MarkdownIt

from tests.conftest import ROOT
from tests.test_evidence import NAMES, SETTINGS, made_up
from tests.test_hub import card
from tests.test_pages import RECORD, advise, similar
from transfer import templates
from transfer.evidence import calibration
from transfer.evidence.records import Evidence, Recall
from transfer.model import about
from transfer.pages import recommendation, report, tables

TEMPLATES = sorted(ROOT.glob("transfer/*/*.j2"))
NASTY = [
    "<form id=data action=//x><input name=y>", "<meta http-equiv=refresh content=0>", "<style>*{",
    "a<b>_c_", "__init__", "_", "a|b", "`", "``a`", "[x](javascript:alert(1))", "![](http://x/y)",
    "[x]: y", "[x]", "[ ] x", "x][y", "</script><!--", "&lt;", "&", "a\nb", "\n\n# a", "# a", "#",
    "C#", "1. a", "2)", "- a", "-", "+", "---", "***", "===", "> a", "    a", "a  ", " a ", "\ta",
    "\\", "a\\", "\\*a\\*", "**", "~~a~~", "$a$", "www.x.org", "http://x.org", "'\"",
    "{{ 7 * 7 }}", "{% raw %}", "\x1b[31ma", "\u202ea", "\udcff", "\u3000a\u3000",
    "می\u200cخواهم", "👩\u200d⚕️", "*to be filled in*",
]  # fmt: skip
PLAIN = "Qq"
MADE = templates.environment(ROOT)
PIECES = st.sampled_from([*"_*`~[]()!<>&|\\#+-=.:'\"$1a \n\t\r\0é\u3000\x85", "://", "www", "<b>"])
JOINED = st.lists(PIECES, min_size=1, max_size=9).map("".join)
name = st.one_of(JOINED, st.text(min_size=1, max_size=9))
PLACES = ["{{ x }}", "- {{ x }}", "1. {{ x }}", "- **{{ x }}**: a", "# {{ x }}", "a {{ x }} b",
    "a _{{ x }}_ b", "({{ x }})", "{{ x }}: {{ x }}", "a\n{{ x }}\nb", "| a |\n|---|\n| {{ x }} |",
    "{% filter aligned %}\n| {{ x }} | b |\n| {{ x }} | {{ x }} |\n{% endfilter %}",
    "<details><summary>a {{ x }}</summary>\n\n</details>", "{{ x|code }}", "- {{ x|code }}: a",
    '<p title="{{ x }}">{{ x }}</p>', "| {{ x|code }} |\n|---|\n| b |",
    "{% macro m(y) %}{{ y }}{% endmacro %}{{ m(x) }}", "![a]({{ x|address }})",
    "```\n{{ x|shell }}\n```"]  # fmt: skip


class Seen(HTMLParser):
    """A page's tags with their attributes, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, attributes))

    def handle_data(self, data):
        self.text += data


def seen(markdown: str) -> Seen:
    return Seen(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown))


@pytest.mark.parametrize("place", PLACES)
@given(name)
def test_a_name_is_shown_as_it_is(place, name):
    shown(place, name)


@pytest.mark.parametrize("name", NASTY)
def test_names_that_are_meant_to_break_a_page_are_shown_as_they_are(name):
    for place in PLACES:
        shown(place, name)


def shown(place: str, name: str) -> None:
    """In that place of a template a name stands as a plain one does."""
    template = MADE.from_string(place)
    plain, found = (seen(template.render(x=x)) for x in (PLAIN, name))
    text = shlex.quote(templates.visible(name)) if "|shell" in place else templates.visible(name)
    assert found.text == plain.text.replace(PLAIN, text)
    target = quote(name.encode("utf-8", "surrogateescape"), "/:")

    def of(attribute: str, value: str) -> str:
        return value.replace(PLAIN, target if attribute == "src" else text)

    assert found.tags == [(tag, [(a, of(a, value)) for a, value in its]) for tag, its in plain.tags]


def test_what_reads_well_is_left_as_it_is():
    for text in ("cats_dogs", "Ant and bee", "+0.069 [-0.036, 0.171]", "it's 5 % (a)", "42 : 31"):
        assert templates.escape(text) == text == templates.escape(templates.escape(text))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_joins_no_more_than_text(path):
    """`~` escapes what it joins to a macro's result for HTML alone, and in no expression is a link
    begun that a name could end."""
    source = path.read_text(encoding="utf-8")
    joined = MADE.parse(source).find_all(nodes.Concat)
    assert not [call for one in joined for call in one.find_all(nodes.Call) if macro(call)]
    assert not re.search(r"\}\}[(\[:]", re.sub(r"\}\}: ", "", source))


def macro(call: nodes.Call) -> bool:
    return isinstance(call.node, nodes.Name)


def renamed(value, names: dict[str, str]):
    """The value with such names changed, where they are a text, a key, or a path's first folder."""
    if isinstance(value, dict):
        return {renamed(key, names): renamed(one, names) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [renamed(one, names) for one in value]
    if isinstance(value, str):
        first, *rest = value.split("/", 1)
        return "/".join([names.get(first, first), *rest])
    return value


def pages(made: dict, first: str, second: str) -> dict[str, str]:
    """All pages of a study whose classes, titles, files and sources have those names. made: its
    evidence."""
    own = {"dataset": "glioma", "image": "a/0", "predicted": "b", "runs": 2, "confidence": 0.9}
    made = made | {"label_errors": [own]}
    evidence = Evidence.model_validate(renamed(made, {"a": first, "b": second}))
    datasets = {
        key: data.model_copy(update={"title": first, "source": second})
        for key, data in SETTINGS.datasets.items()
    }
    audit = SimpleNamespace(
        dataset="glioma",
        redrawn=None,
        near=[],
        remedies=["drop"],
        fixed_camera=None,
        left_out={second: SimpleNamespace(count=1)},
        split=SimpleNamespace(
            images={"train": {first: 3, second: 4}},
            duplicates=SimpleNamespace(across={first: 1}, between_classes=0),
        ),
    )
    record = RECORD.model_copy(update={"device": first, "versions": {second: first}})
    named = {key: datasets[key] for key in SETTINGS.grid.dataset}
    grid = SETTINGS.grid.model_copy(update={"dataset": ["glioma"]})
    advice = replace(
        advise([one for one in evidence.choices if one.dataset == "glioma"]),
        dataset=datasets["glioma"],
    )
    results = {"glioma": {("resnet18", 0.001, "frozen", "default"): {"scratch": 0.5}}}
    return {
        "report": report.write(named, evidence, similar(), {"glioma": audit}, [record], []),
        "recommendation": recommendation.write([advice], []),
        "tables": tables.page(grid, datasets, results, {"glioma": (first, 0.5)}),
        "about": beside(first, second),
    }


def beside(first: str, second: str) -> str:
    """The page beside a network."""
    texts = dict.fromkeys(("run", "start", "start_source", "device", "commit"), second)
    thresholds = {"confidence_threshold": 0.5, "ood_distance": 1.0}
    share = Recall(label="", n=1, mean=1, low=0, high=1)
    return templates.render(
        ROOT / "transfer/model/about.md.j2",
        file=first,
        title=first,
        source=second,
        card=card("resnet18", 1.0).model_copy(
            update={"labels": [first, second], "versions": {first: second}} | texts | thresholds
        ),
        counts={"train": {first: 1, second: 1}},
        recall=[Recall(label=label, n=1, mean=1, low=0, high=1) for label in (first, second)],
        examples=about.Examples([(first, first)], [(first, second)]),
        picture=first,
        error=calibration.Error(
            value=0.1, low=0.0, high=0.2, chance_low=0.0, chance_high=0.1, bins=[]
        ),
        **{"wrong_if_sure": share, "none_of_these": share, "leaked": 1, "near": 1},
    )


def test_every_page_shows_the_names_as_they_are():
    made = made_up(leaked=NAMES[::2], images=["all", 50]).model_dump()
    plain = {key: seen(text) for key, text in pages(made, "Q0", "Q1").items()}
    for init in range(4):
        first, second = "Q" + " ".join(NASTY[init::4]), " / ".join(NASTY[init::4])
        for key, text in pages(made, first, second).items():
            found, words = seen(text), plain[key].text.replace("Q1", templates.visible(second))
            words = words.replace("Q0", templates.visible(first))
            assert letters(found.text) == letters(words), key
            assert [tag for tag, _ in found.tags] == [tag for tag, _ in plain[key].tags], key


def letters(text: str) -> str:
    """Without what a code block's quoting adds, and how lines break."""
    return re.sub(r"['\"\s]", "", text)
