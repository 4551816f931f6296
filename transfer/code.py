"""A hash of the code that a stage runs: it changes when the code's meaning does.

DVC compares files byte by byte, so a stage that depended on its modules would run again after an
edit of a comment. This hash is of the syntax tree of every module that the stage's script imports
within the project, wherever the import stands. Comments, docstrings and layout are no part of it.
"""

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from transfer.files import sha256

ROOT = Path(__file__).parents[1]


def digest(script: str, root: Path = ROOT) -> str:
    """The sha256 of what `script`, such as stages.train, imports below `root`; itself included.

    A file that an imported module names, by a string, and that lies beside it counts as well.
    """
    found = {}
    for name, (path, tree) in modules(script, root).items():
        files = {file.name: sha256(file) for file in named(tree, path)}
        found[name] = meaning(path.read_bytes()), files
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def recorded(stage: str, root: Path) -> str:
    """What data/code/STAGE has to hold."""
    return digest(f"stages.{stage}", root) + "\n"


def modules(script: str, root: Path) -> dict[str, tuple[Path, ast.Module]]:
    """Each module that the script imports, its own and their packages included, and its tree."""
    found: dict[str, tuple[Path, ast.Module]] = {}
    waiting = [script]
    while waiting:
        name = waiting.pop()
        path = module_path(name, root)
        if path and name not in found:
            found[name] = path, parsed(path.read_bytes())
            waiting += [*parents(name), *imported(found[name][1], name, path)]
    return found


# The stages share most of their modules, so what takes long is done once for each.
parsed = cache(ast.parse)


@cache
def nodes(tree: ast.AST) -> list[ast.AST]:
    """The tree's nodes, of all depths."""
    return list(ast.walk(tree))


@cache
def meaning(text: bytes) -> Any:
    """A module's canonical tree, docstrings aside."""
    return canonical(without_docstrings(ast.parse(text)))


def module_path(name: str, root: Path) -> Path | None:
    """The file of a module of the project; None for what is no module, or not the project's."""
    path = root.joinpath(*name.split("."))
    found = [path.with_suffix(".py"), path / "__init__.py"]
    return next((file for file in found if file.is_file()), None)


def parents(name: str) -> list[str]:
    """The packages that Python imports before a module."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def imported(tree: ast.AST, name: str, path: Path) -> Iterator[str]:
    """Every name that may be a module: `from a import b` gives a and a.b."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            module = ".".join([*base * bool(node.level), *filter(None, [node.module])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def named(tree: ast.AST, path: Path) -> Iterator[Path]:
    """The files beside a module that its strings name, such as published.yaml. Modules count when
    they are imported."""
    beside = {file.name: file for file in path.parent.iterdir() if file.suffix != ".py"}
    for node in nodes(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            file = beside.get(node.value)
            if file and file.is_file():
                yield file


def without_docstrings(tree: ast.AST) -> ast.AST:
    """The tree itself, its statements that are a mere string taken out."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            body[:] = [statement for statement in body if not is_text(statement)]
    return tree


def is_text(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def canonical(node: Any) -> Any:
    """A tree as JSON takes it. Empty fields are left out: versions of Python differ in them."""
    if isinstance(node, ast.AST):
        fields = {name: canonical(value) for name, value in ast.iter_fields(node) if name != "kind"}
        return [type(node).__name__, {k: v for k, v in fields.items() if v not in (None, [])}]
    return [canonical(item) for item in node] if isinstance(node, list) else constant(node)


def constant(value: Any) -> Any:
    """None stays None, for it marks an empty field; so a literal None is told from it by its
    node."""
    return None if value is None else [type(value).__name__, repr(value)]
