"""A data set's entry in params.yaml, from how its folder or zip is laid out."""

import io
import re
from pathlib import PurePosixPath
from typing import Any

from ruamel.yaml import YAML

from transfer.cli import UserError
from transfer.images.archive import Source
from transfer.images.audit import EXTENSIONS, is_hidden

TRAIN, TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation")
SHARE = 0.2  # of each class, to test on, where the source is not divided

Layout = dict[str, dict[str, str]]  # part → class → folder


def entry(source: Source) -> dict[str, Any]:
    """What `datasets` takes. Raises UserError where the layout does not say the classes."""
    folders = layout(source)
    test = SHARE if "all" in folders else "all"
    return {
        "title": source.path.stem,
        "table": 0,
        "quadrant": "none",
        "source": str(source.path),
        "folders": folders,
        "count": {"train": "all", "test": test},
    }


def layout(source: Source) -> Layout:
    """Each folder with images is a class: of the source's train and test part if all lie in these,
    else of the whole source. Raises UserError for fewer than two classes, and for two folders of
    one name."""
    images = [name for name in source.names if name.lower().endswith(EXTENSIONS)]
    holding = sorted({PurePosixPath(name).parent for name in images if not is_hidden(name)})
    for folder in holding:
        if above := next((other for other in holding if other in folder.parents), None):
            raise UserError(
                f"{source.path}: images lie in {str(above)!r} and in {str(folder)!r} inside it; "
                "give each class one folder, or write `folders` by hand"
            )
    divided = all(folder.parent.name.lower() in TRAIN + TEST for folder in holding)
    found: Layout = {}
    for folder in holding:
        inside = folder.parent.name.lower()
        part = ("train" if inside in TRAIN else "test") if divided else "all"
        place = "/".join(folder.parts[-2:] if divided else folder.parts)
        if found.setdefault(part, {}).setdefault(folder.name, place) != place:
            raise UserError(
                f"{source.path}: two folders are called {folder.name!r}; rename one, or write "
                "`folders` by hand"
            )
    parts = list(found.values())
    if not parts or min(map(len, parts)) < 2 or any(list(part) != list(parts[0]) for part in parts):
        raise UserError(
            f"{source.path}: found {describe(found)}; it takes a folder for each of two classes or "
            "more, at the top or in both train and test"
        )
    return found


def describe(found: Layout) -> str:
    parts = [f"{part}: {', '.join(map(repr, classes))}" for part, classes in found.items()]
    return "; ".join(parts) or "no folder with images"


def put(text: str, name: str, dataset: dict[str, Any]) -> str:
    """params.yaml with this as the study's one data set, and a fifth of its training images held
    out to choose by. All other settings and their comments stay."""
    text = _with_section(text, "download", {})
    text = _with_section(text, "datasets", {name: dataset})
    settings = YAML().load(text)
    settings["grid"]["dataset"] = [name]
    settings["split"]["validation"] = 0.2
    return _dumped(settings)


def _with_section(text: str, key: str, value: Any) -> str:
    """With other lines for a top-level key. (Where ruamel.yaml replaces a section, the comment
    above the next one is lost.)"""
    lines = rf"^{key}:.*\n(?:\n* .*\n)*"
    return re.sub(lines, lambda _: _dumped({key: value}), text, flags=re.M)


def _dumped(value: Any) -> str:
    yaml, out = YAML(), io.StringIO()
    yaml.width = 4096  # breaks no line
    yaml.dump(value, out)
    return out.getvalue()
