"""Write what a change does to the study as one markdown comment: whether dvc.lock is in step, which
settings, accuracies and figures differ. It compares the working tree with a commit, and needs
neither data nor a GPU."""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

from ruamel.yaml import YAML

from transfer import cli, code, files
from transfer.commands import call, error_line, following, succeeded
from transfer.review import page

WHAT = {"A": "is new", "D": "is gone", "M": "changed", "T": "changed"}


def main() -> None:
    args = parse()
    base, head = commit(args.base), commit(args.head)
    os.chdir(git("rev-parse", "--show-toplevel").strip())
    pipelines = git("ls-files", "dvc.yaml", "*/dvc.yaml").split()
    locks = [lock(pipeline) for pipeline in pipelines]
    repositories = sorted({repository(pipeline) for pipeline in pipelines})
    text = page.write(
        base[:10],
        locks,
        differing(repositories, "metrics", "diff", "--all", base),
        differing(repositories, "params", "diff", base),
        pictures(base, head),
    )
    if args.output:
        files.write_text(args.output, text)
    else:
        print(text, end="")
    stale = [lock.pipeline for lock in locks if lock.stale]
    if args.check and stale:
        redo = ", ".join(f"`{page.redo(pipeline)}`" for pipeline in stale)
        raise cli.UserError(
            f"the dvc.lock of {', '.join(stale)} is out of step; "
            f"run {redo} and commit what it makes"
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m transfer review", description=__doc__)
    parser.add_argument("base", help="the commit to compare with, such as main")
    help = "the commit that holds the new figures, for links to them on GitHub"
    parser.add_argument("--head", default="HEAD", help=help)
    parser.add_argument(
        "--output", type=os.path.abspath, help="a file to write instead of printing"
    )
    help = "exit with 1 when a dvc.lock is out of step"
    parser.add_argument("--check", action="store_true", help=help)
    return parser.parse_args()


def commit(name: str) -> str:
    """Its full hash. Raises UserError for what is none, or is not in this clone."""
    done = call("git", "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if done.returncode:
        raise cli.UserError(f"{name}: no such commit here; fetch it, or name another")
    return done.stdout.strip()


def lock(pipeline: str) -> page.Lock:
    """How a dvc.yaml's lock stands: judged by DVC, and its code by what it means. Data that are not
    here are taken to be as the lock says. Raises UserError for a dvc.yaml that DVC cannot read."""
    folder = Path(pipeline).parent
    if not (folder / "dvc.lock").is_file():
        succeeded(dvc("stage", "list", "--name-only", folder=folder))
        return page.Lock(pipeline, None)
    if not (stale := stale_stages(folder)):
        return page.Lock(pipeline, [])
    # What follows a stage that fails is not looked at; each by itself is.
    stale |= stale_stages(folder, "--single-item")
    if "code" in stale:  # it runs after any edit, and its outputs change where meaning did
        stale = stale - {"code"} | of_other_code(folder)
    graph = succeeded(dvc("dag", "--dot", folder=folder))
    return page.Lock(pipeline, sorted(stale), len(following(graph, stale)))


def stale_stages(folder: Path, *options: str) -> set[str]:
    """Those that `dvc repro --dry` would run. Raises UserError when DVC cannot tell."""
    options = "--dry", "--allow-missing", "--keep-going", *options
    done = dvc("repro", *options, folder=folder)
    # A stage that it would run, and whose data are not here, fails: DVC looks for it in its cache.
    runs = re.findall(r"^Running stage '([^']+)':", done.stdout, re.M)
    fails = re.findall(r"^ERROR: failed to reproduce (.*)", done.stderr, re.M)
    stale = {*runs, *re.findall(r"'([^']+)'", " ".join(fails))}
    if done.returncode and not stale:
        raise cli.UserError(error_line(done))
    return stale


def of_other_code(folder: Path) -> set[str]:
    """The stages whose code, by the hashes in dvc.lock, is not the code that is here."""
    recorded = {
        (stage, Path(dep["path"]).name): dep["md5"]
        for stage, entry in YAML(typ="safe").load(folder / "dvc.lock")["stages"].items()
        for dep in entry.get("deps", [])
        if Path(dep["path"]).parent == Path("data/code")
    }
    here = {
        script: hashlib.md5(code.recorded(script, folder).encode()).hexdigest()
        for script in {script for _, script in recorded}
    }
    return {stage for (stage, script), md5 in recorded.items() if md5 != here[script]}


def pictures(base: str, head: str) -> list[page.Picture]:
    """The PNGs kept by git that differ from those of the commit `base`."""
    entries = git("diff", "--name-status", "--no-renames", "-z", base, "--", "*.png").split("\0")
    return [
        page.Picture(
            path,
            WHAT[letter],
            None if letter == "A" else address(path, base),
            None if letter == "D" else address(path, head),
        )
        for letter, path in zip(entries[:-1:2], entries[1::2], strict=True)
    ]


def address(path: str, commit: str) -> str | None:
    """Where GitHub shows a commit's file; None when this does not run there."""
    server, repository = (os.environ.get(f"GITHUB_{x}") for x in ("SERVER_URL", "REPOSITORY"))
    return f"{server}/{repository}/raw/{commit}/{quote(path)}" if server and repository else None


def repository(pipeline: str) -> Path:
    """The folder of the DVC repository that a dvc.yaml is of: the sample has one of its own."""
    return next(folder for folder in Path(pipeline).parents if (folder / ".dvc").is_dir())


def differing(repositories: list[Path], *command: str) -> page.Diff:
    """What a DVC command says of each, as JSON, by file."""
    found = {}
    for folder in repositories:
        said = json.loads(succeeded(dvc(*command, "--json", folder=folder)) or "{}")
        found |= {str(folder / file): entries for file, entries in said.items()}
    return found


def dvc(*arguments: str, folder: Path | str = ".") -> subprocess.CompletedProcess[str]:
    return call(sys.executable, "-m", "dvc", *arguments, folder=folder)


def git(*arguments: str) -> str:
    return succeeded(call("git", *arguments))
