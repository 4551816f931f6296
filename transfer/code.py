"""A hash of the code that a stage runs: it changes when the code's meaning does.

DVC compares files byte by byte, so a stage that depended on its modules would run again after an
edit of a comment. This hash is of the syntax tree of every module that the stage's script imports
within the project, wherever the import stands. What cannot change a result is no part of it:

- comments, docstrings, layout, and whether a text is an f-string or made by `format`;
- the names of a function's variables, and of parameters that nothing tells by name;
- annotations outside classes, where pydantic and dataclasses read them;
- the words that a stage prints, or fails with.

Everything else is: the order of definitions, a function that the stage never calls, an equal
expression. `python -m transfer accept` is for edits of such things.
"""

import ast
import builtins
import hashlib
import json
import re
from collections.abc import Iterator, Set
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any

from transfer.files import sha256

ROOT = Path(__file__).parents[1]
Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef
SEES_NAMES = {"dir", "eval", "exec", "globals", "locals", "vars"}
"""Functions to which the names of variables mean something."""


def digest(script: str, root: Path = ROOT) -> str:
    """The sha256 of what `script`, such as stages.train, imports below `root`; itself included.

    A file that an imported module names, by a string, and that lies beside it counts as well.
    """
    found, read = {}, modules(script, root)
    told = set().union(*(told_by(tree) for _, tree in read.values()))
    for name, (path, tree) in read.items():
        files = {file.name: sha256(file) for file in named(tree, path)}
        kept = frozenset(told & {node.arg for node in nodes(tree) if isinstance(node, ast.arg)})
        found[name] = meaning(path.read_bytes(), kept), files
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
@cache
def parsed(text: bytes) -> ast.Module:
    """A module's tree, without what cannot change a result; variables have their own names."""
    return Plain().visit(ast.parse(text))


@cache
def nodes(tree: ast.AST) -> list[ast.AST]:
    """The tree's nodes, of all depths."""
    return list(ast.walk(tree))


@cache
def meaning(text: bytes, told: frozenset[str]) -> Any:
    """A module's canonical tree. told: the parameters whose names mean something."""
    tree = Plain().visit(ast.parse(text))
    rename_variables(tree, set(dir(builtins)) | set(defined(tree)), told)
    return canonical(tree)


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


@cache
def told_by(tree: ast.AST) -> set[str]:
    """Every word that code could name a parameter by: of keywords, attributes and texts."""
    return set(_told(tree))


def _told(tree: ast.AST) -> Iterator[str]:
    for node in nodes(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif text := text_of(node):
            yield from re.findall(r"\w+", text)
        elif isinstance(node, ast.ClassDef):  # fields, which `**` may spell out
            yield from filter(None, map(variable, (n for s in node.body for n in ast.walk(s))))


def named(tree: ast.AST, path: Path) -> Iterator[Path]:
    """The files beside a module that its strings name, such as published.yaml. Modules count when
    they are imported."""
    beside = {file.name: file for file in path.parent.iterdir() if file.suffix != ".py"}
    for node in ast.walk(tree):
        if (file := beside.get(text_of(node) or "")) and file.is_file():
            yield file


class Plain(ast.NodeTransformer):
    """Takes out of a tree what cannot change a result, names of variables aside."""

    inside = ""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        outside, self.inside = self.inside, type(node).__name__ if is_scope(node) else self.inside
        node = super().generic_visit(node)
        self.inside = outside
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if text_of(node.value) is not None else self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        # A decorator might read annotations.
        if self.inside != "ClassDef" and not node.decorator_list:
            node.returns = None
            for one in ast.walk(node.args):
                if isinstance(one, ast.arg):
                    one.annotation = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if self.inside == "ClassDef":
            return self.generic_visit(node)
        return self.generic_visit(ast.Assign([node.target], node.value)) if node.value else None

    def visit_Call(self, node: ast.Call) -> ast.AST:
        # Nothing but cli.run, which prints it, looks at what a UserError says.
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        to_file = any(keyword.arg == "file" for keyword in node.keywords)
        if name == "UserError" or (name == "print" and not to_file):
            node.args = [Wordless().visit(value) or ast.Constant("") for value in node.args]
        return self.generic_visit(as_f_string(node) or node)


class Wordless(ast.NodeTransformer):
    """Takes the literal texts out of a message. What it calls for its values stays, for that could
    do more."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        plain = ast.BinOp | ast.IfExp | ast.JoinedStr
        return super().generic_visit(node) if isinstance(node, plain) else node

    def visit_Constant(self, node: ast.Constant) -> ast.AST | None:
        return node if text_of(node) is None else None


def text_of(node: ast.AST) -> str | None:
    """The text that a node is."""
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, str) else None


def is_scope(node: ast.AST) -> bool:
    return isinstance(node, Definition | ast.Lambda)


def as_f_string(call: ast.Call) -> ast.AST | None:
    """The f-string that says the same as `format` of a literal text; None where there is none that
    takes each value once and in order."""
    of = call.func if isinstance(call.func, ast.Attribute) and call.func.attr == "format" else None
    text = text_of(of.value) if of else None
    if text is None:
        return None
    given: dict[str | None, ast.expr] = {str(at): value for at, value in enumerate(call.args)}
    given |= {keyword.arg: keyword.value for keyword in call.keywords}
    parts: list[ast.expr] = []
    taken: list[ast.expr] = []
    for literal, field, spec, conversion in Formatter().parse(text):
        parts += [ast.Constant(literal)] * bool(literal)
        if field is not None:
            value = given.get(field or str(len(taken)))
            if value is None or "{" in (spec or ""):
                return None
            taken.append(value)
            style = ast.JoinedStr([ast.Constant(spec)]) if spec else None
            parts.append(ast.FormattedValue(value, ord(conversion) if conversion else -1, style))
    return ast.JoinedStr(parts) if taken == list(given.values()) else None


def variable(node: ast.AST) -> str | None:
    """The name of the variable that a node binds."""
    if isinstance(node, ast.Name):
        return None if isinstance(node.ctx, ast.Load) else node.id
    if isinstance(node, ast.arg):
        return node.arg
    return node.name if isinstance(node, ast.ExceptHandler) else None


def defined(statement: ast.AST) -> Iterator[str]:
    """The names that a statement binds where it stands, other than as variables of a function."""
    waiting = [statement]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.alias):
            yield (node.asname or node.name).split(".")[0]
        elif isinstance(node, Definition):
            yield node.name
        elif name := variable(node):
            yield name
        waiting += [] if is_scope(node) else ast.iter_child_nodes(node)


def rename_variables(node: ast.AST, shared: set[str], told: Set[str]) -> None:
    """Number each function's variables in the order in which they stand. Names stay that mean
    something elsewhere: `shared` ones, which are the module's or Python's own; of parameters those
    that are `told`; and all in a function that can see names."""
    if not isinstance(node, Function):
        for part in ast.iter_child_nodes(node):
            rename_variables(part, shared, told)
        return
    nodes = list(ast.walk(node))
    kept = shared | {one.arg for one in nodes if isinstance(one, ast.arg)} & told
    for one in nodes:
        if isinstance(one, ast.Name) and one.id in SEES_NAMES:
            return
        if isinstance(one, ast.Import | ast.ImportFrom | Definition):
            kept |= set(defined(one))
        elif isinstance(one, ast.Global | ast.Nonlocal):
            kept |= set(one.names)
        elif isinstance(one, ast.MatchAs | ast.MatchStar | ast.MatchMapping):
            return
        if isinstance(one, ast.ClassDef):
            kept |= {name for statement in one.body for name in defined(statement)}
    found = dict.fromkeys(name for one in nodes if (name := variable(one)) and name not in kept)
    numbered = {name: f"{number}" for number, name in enumerate(found)}
    for one in nodes:
        if field := {"Name": "id", "arg": "arg", "ExceptHandler": "name"}.get(type(one).__name__):
            setattr(one, field, numbered.get(getattr(one, field), getattr(one, field)))


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
