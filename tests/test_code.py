"""The hash of a stage's code: it follows the meaning of what the stage imports, and that alone."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from transfer import code

LONG = """
from dataclasses import dataclass
RATE = 0.1

@dataclass
class Row:
    width: int
    def area(self, height: int, scale: int = 1) -> int:
        return self.width * height * scale

def total(rows: list, start: int, bound: float) -> float:
    found: float = start
    try:
        for row in rows:
            found += row.area(2, scale=3) * RATE
        label = f'{found:.2f} of {bound}'
    except ValueError as error:
        raise UserError(f'no total: {error}; give rows') from None
    print('the total is', label, [one for one in 'ab'])
    print(seen('total'))
    return found

def seen(name):
    return sorted(vars()) + [name, 'a file']
"""
MODULES = {
    "stages/__init__.py": "",
    "stages/one.py": '"""One."""\nfrom pkg import a\n\n\ndef main():\n    return a.value(2)\n',
    "stages/two.py": "import pkg.deep.inner\n",
    "pkg/__init__.py": "NAME = 'pkg'\n",
    "pkg/a.py": "def value(x):\n    '''Doubled.'''\n    from . import b\n    return b.DOUBLE * x\n",
    "pkg/b.py": "DOUBLE = 2\nTABLE = 'table.txt'\n",
    "pkg/table.txt": "1 2 3\n",
    "pkg/alone.py": "X = 1\n",
    "pkg/long.py": LONG,
    "pkg/deep/__init__.py": "",
    "pkg/deep/inner.py": "from .. import long\nfrom ..alone import X\n",
}
# file, text, what takes its place, the stages that this changes
EDITS = {
    "a value": ("pkg/b.py", "DOUBLE = 2", "DOUBLE = 3", {"one"}),
    "a parent's code": ("pkg/__init__.py", "'pkg'", "'other'", {"one", "two"}),
    "what a relative import brings": ("pkg/alone.py", "1", "2", {"two"}),
    "a file that is named": ("pkg/table.txt", "1 2", "1 3", {"one"}),
    "an import": ("stages/one.py", "import a\n", "import a, alone\n", {"one"}),
    "None for nothing": ("pkg/b.py", "DOUBLE = 2", "DOUBLE = None", {"one"}),
    "a number's type": ("pkg/b.py", "DOUBLE = 2", "DOUBLE = 2.0", {"one"}),
    "a comment": ("pkg/b.py", "DOUBLE = 2", "# Two.\nDOUBLE = 2  # two", set()),
    "a docstring": ("pkg/a.py", "Doubled.", "Twice the number.", set()),
    "a module's docstring": ("stages/one.py", "One.", "The first.", set()),
    "layout": (
        "pkg/a.py",
        "return b.DOUBLE * x",
        "return (\n        b.DOUBLE\n        * x\n    )",
        set(),
    ),
    "quotes": ("pkg/__init__.py", "'pkg'", '"pkg"', set()),
    **{
        f"long: {before} → {after}": ("pkg/long.py", before, after, stages)
        for stages, edits in {
            (): {
                "found": "result",
                "row in rows:\n            found += row": "x in rows:\n            found += x",
                "error": "problem",
                "start": "begin",
                "one for one in": "c for c in",
                "label": "text",
                "found: float = start": "found = start",
                "rows: list, start: int": "rows, start: float",
                ") -> float:": "):",
                "no total: ": "There is no total: ",
                "the total is": "Total:",
            },
            ("two",): {
                "found: float = start": "RATE = start",
                "RATE = 0.1": "RATES = 0.1",
                "* RATE": "* rows",
                "return found": "return start",
                "rows: list, start: int": "start: int, rows: list",
                "scale": "factor",
                "width: int": "width: float",
                "height: int": "height: float",
                "of {bound}": "from {bound}",
                "of {bound}'": "of {start}'",
                "seen('total')": "seen('sum')",
                "seen(name):": "seen(names):",
                "a file": "file",
                "no total: {error}": "no total: {rows}",
            },
        }.items()
        for before, after in edits.items()
    },
    "a module that none imports": ("pkg/other.py", "", "Y = 1\n", set()),
}


@pytest.fixture
def project(tmp_path) -> Path:
    for name, text in MODULES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_changes_the_stages_that_it_means_something_to(project, edit):
    name, before, after, expected = EDITS[edit]
    digests = {stage: code.digest(f"stages.{stage}", project) for stage in ("one", "two")}
    path = project / name
    text = path.read_text() if path.exists() else ""
    assert before in text
    path.write_text(
        text.replace(before, after) if name == "pkg/long.py" else text.replace(before, after, 1)
    )
    changed = {s for s in digests if code.digest(f"stages.{s}", project) != digests[s]}
    assert changed == set(expected)


LOADS = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    ours = {m for m in sys.modules if m.split('.')[0] in ('stages', 'transfer')}
    print(*ours)
    for module in ours:  # what is not the project's stays, since it takes seconds
        del sys.modules[module]
"""


def test_all_that_a_stage_loads_of_the_project_counts():
    """Python's own word for what is loaded; the rest is imported when it is called."""
    names = [f"stages.{script.stem}" for script in sorted((ROOT / "stages").glob("[!_]*.py"))]
    done = subprocess.run(
        [sys.executable, "-c", LOADS, *names], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name, line in zip(names, done.stdout.splitlines(), strict=True):
        loaded = set(line.split())
        assert name in loaded and loaded <= code.modules(name, ROOT).keys()


def test_a_copy_elsewhere_has_the_same_hash(tmp_path):
    for name in ("stages", "transfer"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for stage in ("train", "report"):
        assert code.digest(f"stages.{stage}", tmp_path) == code.digest(f"stages.{stage}", ROOT)


ROOMS = {  # what each may import besides itself and the modules that lie in transfer/
    "images": set(),
    "training": {"images"},
    "evidence": {"images", "training"},
    "pages": {"images", "training", "evidence"},
    "model": {"images", "training", "evidence"},
    "cluster": {"images", "training", "evidence", "pages"},
    "review": {"evidence"},
}


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_imports_run_one_way(room):
    found = set()
    for path in (ROOT / "transfer" / room).glob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found |= set(code.imported(ast.parse(path.read_text()), name, path))
    rooms = {name.split(".")[1] for name in found if name.startswith("transfer.")} & set(ROOMS)
    assert rooms - {room} <= ROOMS.get(room, set())
    assert not any(name.startswith("stages") for name in found)
