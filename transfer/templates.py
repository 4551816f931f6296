"""Pages from Jinja2 templates, which hold the words."""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from tabulate import tabulate

from transfer.runs import capital, short


def environment(folder: Path) -> Environment:
    """For the templates there. Those of HTML escape what they are given, those of markdown do not.
    `{% filter aligned %}` pads a table's cells, for those who read the markdown itself; `cell`
    takes any text into one."""
    made = Environment(
        loader=FileSystemLoader(folder),
        autoescape=lambda name: (name or "").endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"aligned": aligned, "cell": cell, "capital": capital, "short": short}
    return made


def render(template: Path, **values: Any) -> str:
    text = environment(template.parent).get_template(template.name).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text)


def aligned(table: str) -> str:
    """A markdown table, its first line the header, with columns of one width and a rule."""
    lines = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in table.strip().splitlines()]
    header, *rows = [[text.strip() for text in line] for line in lines]
    return tabulate(rows, header, tablefmt="github", disable_numparse=True) + "\n"


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
