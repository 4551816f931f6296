"""Pages from Jinja2 templates, which hold the words. A template escapes the values that it is given
for markdown and HTML, unless they are Markup."""

import os
import re
import shlex
from collections.abc import Iterable
from html.entities import codepoint2name
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from tabulate import tabulate

from transfer.runs import capital, short

# Control characters, characters that reorder the text around them, and lone surrogates.
INVISIBLE = re.compile(r"[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
SPECIAL = re.compile(
    r"""[&<"*`|~\\#$]               # anywhere
    | (?<!\w)_+ | _+(?!\w)          # not within cats_dogs
    | \](?=[\[(:])                  # a link
    | :(?=//) | (?<=[wW]{3})\.      # an address that GitHub would make a link
    | ^\s+ | \s+$ | ^[>=\[]         # at an end, for a title or a cell may begin or end a line
    | ^[-+](?=[-+\s]|$) | ^\d(?=\d{0,8}[.)](?:\s|$))""",
    re.VERBOSE,
)


def environment(folder: Path) -> Environment:
    """For the folder's templates of markdown or HTML. `{% filter aligned %}` pads a table's cells
    for readers of the markdown itself. `code`, `address` and `shell` are for values inside code,
    links and commands."""
    jinja = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        finalize=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = (aligned, capital, short, code, address, shell)
    jinja.filters |= {function.__name__: function for function in filters}
    return jinja


def render(template: Path, **values: Any) -> str:
    text = environment(template.parent).get_template(template.name).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text)


def escape(value: Any) -> Markup:
    """The value's text, escaped for a line of markdown, for HTML, and for an attribute in double
    quotes. Character references work in all three, unlike backslashes."""
    if hasattr(value, "__html__"):
        return Markup(value)
    return Markup(SPECIAL.sub(lambda match: _references(match[0]), visible(str(value))))


def _references(text: str) -> str:
    return "".join(f"&{codepoint2name.get(ord(c), f'#{ord(c)}')};" for c in text)


def visible(text: str) -> str:
    """The text with invisible characters as Python escapes them."""
    return INVISIBLE.sub(lambda match: repr(match[0])[1:-1], text)


def code(text: str) -> Markup:
    """As code, in which nothing becomes a link or a mention; it may stand in a table's cell."""
    plain = visible(text)
    if not plain.strip() or plain != plain.strip() or re.search("[`|]", plain):
        return Markup(f"<code>{escape(text)}</code>")
    return Markup(f"`{plain}`")


def address(path: str) -> Markup:
    """As the target of a link or a picture."""
    return Markup(quote(os.fsencode(path), safe="/:"))


def shell(text: str) -> Markup:
    """As a word of a command in a block of code."""
    return Markup(shlex.quote(visible(text)))


def aligned(markdown: str) -> Markup:
    """A markdown table, its first line the header, with aligned columns and a rule."""
    lines = [line.strip().split("|")[1:-1] for line in markdown.strip().splitlines()]
    header, *rows = [[Markup(text.strip()) for text in line] for line in lines]
    return table(header, rows) + Markup("\n")


def table(
    header: Iterable[str], rows: Iterable[Iterable[object]], align: list[str] | None = None
) -> Markup:
    """A markdown table. align: `left` or `right` for each column."""
    cells = [[escape(cell) for cell in row] for row in rows]
    names = [escape(name) for name in header]
    github: dict[str, Any] = {"tablefmt": "github", "disable_numparse": True, "colalign": align}
    return Markup(tabulate(cells, names, **github))
