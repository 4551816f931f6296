"""A hash of the code that a stage runs, which changes only when the code's meaning does.

DVC compares files byte by byte, so a stage that depended on its modules would run again after an
edit of a comment. The hash covers the syntax trees of all modules of the project that the stage's
script imports, at any depth. It leaves out what cannot change a result:

- comments, docstrings, layout, and whether a text is an f-string or made by `format`;
- names of a function's variables, and of parameters that are only passed by position;
- annotations outside classes (in classes pydantic and dataclasses read them);
- the wording of printed lines and error messages.

It covers everything else, such as the order of definitions and functions that the stage never
calls. `python -m transfer accept` is for edits of these.
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
"""Functions that can read the names of variables."""


def digest(script: str, root: Path = ROOT) -> str:
    """The sha256 of `script`, such as stages.train, and of all that it imports below `root`.

    Data files count if they lie beside an imported module that names them in a string.
    """
    meanings, trees = {}, modules(script, root)
    words = set().union(*(words_in(tree) for _, tree in trees.values()))
    for name, (path, tree) in trees.items():
        files = {file.name: sha256(file) for file in data_files(tree, path)}
        parameters = {node.arg for node in nodes(tree) if isinstance(node, ast.arg)}
        meanings[name] = meaning(path.read_bytes(), frozenset(words & parameters)), files
    return hashlib.sha256(json.dumps(meanings, sort_keys=True).encode()).hexdigest()


def recorded(stage: str, root: Path) -> str:
    """The content of data/code/STAGE."""
    return digest(f"stages.{stage}", root) + "\n"


def modules(script: str, root: Path) -> dict[str, tuple[Path, ast.Module]]:
    """The path and syntax tree of the script's module, and of all that it imports with their
    packages."""
    trees: dict[str, tuple[Path, ast.Module]] = {}
    waiting = [script]
    while waiting:
        name = waiting.pop()
        path = module_path(name, root)
        if path and name not in trees:
            trees[name] = path, parsed(path.read_bytes())
            waiting += [*parents(name), *imported(trees[name][1], name, path)]
    return trees


# The stages share most of their modules, so slow functions are cached by module.
@cache
def parsed(text: bytes) -> ast.Module:
    """A module's tree, without what cannot change a result apart from names of variables."""
    return Plain().visit(ast.parse(text))


@cache
def nodes(tree: ast.AST) -> list[ast.AST]:
    """The tree's nodes, of all depths."""
    return list(ast.walk(tree))


@cache
def meaning(text: bytes, kept: frozenset[str]) -> Any:
    """A module's canonical tree. kept: parameters whose names count."""
    tree = Plain().visit(ast.parse(text))
    rename_variables(tree, set(dir(builtins)) | set(defined(tree)), kept)
    return canonical(tree)


def module_path(name: str, root: Path) -> Path | None:
    """The file of a module of the project; None for other names."""
    path = root.joinpath(*name.split("."))
    files = [path.with_suffix(".py"), path / "__init__.py"]
    return next((file for file in files if file.is_file()), None)


def parents(name: str) -> list[str]:
    """The packages that Python imports before a module."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def imported(tree: ast.AST, name: str, path: Path) -> Iterator[str]:
    """All names that may be modules: `from a import b` gives a and a.b."""
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
def words_in(tree: ast.AST) -> set[str]:
    """All words by which code could refer to a parameter: keywords, attributes, words of texts and
    fields of classes."""
    return set(_words_in(tree))


def _words_in(tree: ast.AST) -> Iterator[str]:
    for node in nodes(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif text := text_of(node):
            yield from re.findall(r"\w+", text)
        elif isinstance(node, ast.ClassDef):  # whose fields may be passed by `**`
            yield from filter(None, map(variable, (n for s in node.body for n in ast.walk(s))))


def data_files(tree: ast.AST, path: Path) -> Iterator[Path]:
    """The files beside a module that its strings name, such as published.yaml, except modules."""
    beside = {file.name: file for file in path.parent.iterdir() if file.suffix != ".py"}
    for node in ast.walk(tree):
        if (file := beside.get(text_of(node) or "")) and file.is_file():
            yield file


class Plain(ast.NodeTransformer):
    """Removes from a tree what cannot change a result, apart from names of variables."""

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
            for argument in ast.walk(node.args):
                if isinstance(argument, ast.arg):
                    argument.annotation = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if self.inside == "ClassDef":
            return self.generic_visit(node)
        return self.generic_visit(ast.Assign([node.target], node.value)) if node.value else None

    def visit_Call(self, node: ast.Call) -> ast.AST:
        # A UserError's text is only printed, by cli.run.
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        to_file = any(keyword.arg == "file" for keyword in node.keywords)
        if name == "UserError" or (name == "print" and not to_file):
            node.args = [Wordless().visit(value) or ast.Constant("") for value in node.args]
        return self.generic_visit(as_f_string(node) or node)


class Wordless(ast.NodeTransformer):
    """Removes the literal texts from a message. Calls stay, since they may have effects."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        plain = ast.BinOp | ast.IfExp | ast.JoinedStr
        return super().generic_visit(node) if isinstance(node, plain) else node

    def visit_Constant(self, node: ast.Constant) -> ast.AST | None:
        return node if text_of(node) is None else None


def text_of(node: ast.AST) -> str | None:
    """The text of a string literal, None for other nodes."""
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, str) else None


def is_scope(node: ast.AST) -> bool:
    return isinstance(node, Definition | ast.Lambda)


def as_f_string(call: ast.Call) -> ast.AST | None:
    """The f-string equal to a call of a literal text's `format`; None if that does not take each
    value once and in order."""
    method = call.func if isinstance(call.func, ast.Attribute) else None
    text = text_of(method.value) if method and method.attr == "format" else None
    if text is None:
        return None
    values: dict[str | None, ast.expr] = {str(at): value for at, value in enumerate(call.args)}
    values |= {keyword.arg: keyword.value for keyword in call.keywords}
    parts: list[ast.expr] = []
    taken: list[ast.expr] = []
    for literal, field, spec, conversion in Formatter().parse(text):
        parts += [ast.Constant(literal)] * bool(literal)
        if field is not None:
            value = values.get(field or str(len(taken)))
            if value is None or "{" in (spec or ""):
                return None
            taken.append(value)
            style = ast.JoinedStr([ast.Constant(spec)]) if spec else None
            parts.append(ast.FormattedValue(value, ord(conversion) if conversion else -1, style))
    return ast.JoinedStr(parts) if taken == list(values.values()) else None


def variable(node: ast.AST) -> str | None:
    """The name of the variable that a node binds."""
    if isinstance(node, ast.Name):
        return None if isinstance(node.ctx, ast.Load) else node.id
    if isinstance(node, ast.arg):
        return node.arg
    return node.name if isinstance(node, ast.ExceptHandler) else None


def defined(statement: ast.AST) -> Iterator[str]:
    """The names that a statement binds in its own scope."""
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


def rename_variables(tree: ast.AST, shared: set[str], parameters: Set[str]) -> None:
    """Number each function's variables in order of appearance. Names stay if they count elsewhere:
    `shared` names of the module and of Python; these `parameters`; and all names in a function that
    can read names."""
    if not isinstance(tree, Function):
        for child in ast.iter_child_nodes(tree):
            rename_variables(child, shared, parameters)
        return
    nodes = list(ast.walk(tree))
    kept = shared | {node.arg for node in nodes if isinstance(node, ast.arg)} & parameters
    for node in nodes:
        if isinstance(node, ast.Name) and node.id in SEES_NAMES:
            return
        if isinstance(node, ast.Import | ast.ImportFrom | Definition):
            kept |= set(defined(node))
        elif isinstance(node, ast.Global | ast.Nonlocal):
            kept |= set(node.names)
        elif isinstance(node, ast.MatchAs | ast.MatchStar | ast.MatchMapping):
            return
        if isinstance(node, ast.ClassDef):
            kept |= {name for statement in node.body for name in defined(statement)}
    names = dict.fromkeys(name for node in nodes if (name := variable(node)) and name not in kept)
    numbered = {name: f"{number}" for number, name in enumerate(names)}
    for node in nodes:
        if field := {"Name": "id", "arg": "arg", "ExceptHandler": "name"}.get(type(node).__name__):
            setattr(node, field, numbered.get(getattr(node, field), getattr(node, field)))


def canonical(node: Any) -> Any:
    """A tree as lists and dicts for JSON. Without empty fields, in which versions of Python
    differ."""
    if isinstance(node, ast.AST):
        fields = {name: canonical(value) for name, value in ast.iter_fields(node) if name != "kind"}
        return [type(node).__name__, {k: v for k, v in fields.items() if v not in (None, [])}]
    return [canonical(item) for item in node] if isinstance(node, list) else constant(node)


def constant(value: Any) -> Any:
    """A constant with its type (1 is not 1.0); an empty field stays None."""
    return None if value is None else [type(value).__name__, repr(value)]
