"""A kept network as an artifact of DVC's, which `dvc artifacts get` and GTO's tags know by name."""

from pathlib import Path

from ruamel.yaml import YAML
from slugify import slugify

from transfer import files
from transfer.cli import UserError
from transfer.commands import call, succeeded

NAME = "dvc.yaml"


def check(output: Path) -> None:
    """Raise UserError where `register` could not."""
    if output.parent.resolve() == Path.cwd():
        raise UserError(f"{output}: --register needs a folder for models, such as models/")
    succeeded(call("git", "rev-parse"))
    root = Path(succeeded(call("dvc", "root")).strip()).resolve()
    if not output.resolve().is_relative_to(root):
        raise UserError(f"{output}: --register needs a file within {root}")


def register(output: Path, title: str) -> str:
    """Let DVC track the file, and declare it in a dvc.yaml beside it; returns what to do next.
    Raises UserError where DVC does not take it."""
    succeeded(call("dvc", "add", "--quiet", str(output)))
    path, name = output.parent / NAME, slugify(output.stem)
    yaml = YAML()
    text = yaml.load(path) if path.is_file() else {}
    text.setdefault("artifacts", {})[name] = {
        "path": output.name,
        "type": "model",
        "desc": f"Which class an image is of: {title}",
    }
    with files.replacing(path) as part:
        yaml.dump(text, part)
    root = Path(succeeded(call("git", "rev-parse", "--show-toplevel")).strip())
    full = f"{output.parent.resolve().relative_to(root.resolve()).as_posix()}:{name}"
    page = [output.with_suffix(ending).name for ending in (".md", ".png")]
    beside = [f"{output.name}.dvc", NAME, *page, ".gitignore"]
    tracked = [own for one in beside if (own := output.parent / one).is_file()]
    return "\n".join([
        f"{path}: declares the artifact {full}; next",
        f"  git add {' '.join(map(str, tracked))} && git commit && dvc push",
        f"  gto register {full}",
    ])  # fmt: skip
