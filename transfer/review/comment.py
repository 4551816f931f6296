"""Write what a change does to the study as one markdown comment: whether each dvc.lock is in step,
and which recommendations, accuracies, settings and figures differ. It compares the working tree
with a commit, and needs neither data nor a GPU."""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from transfer import cli, code, files
from transfer.commands import call, error_line, following, succeeded
from transfer.review import page


def main() -> None:
    args = parse()
    base, head = commit(args.base), commit(args.head)
    os.chdir(git("rev-parse", "--show-toplevel").strip())
    pipelines = git("ls-files", "dvc.yaml", "*/dvc.yaml").split()
    locks = [lock(pipeline) for pipeline in pipelines]
    # The sample is a DVC repository of its own.
    folders = {next(at for at in Path(p).parents if (at / ".dvc").is_dir()) for p in pipelines}
    metrics = differing(folders, "metrics", "diff", "--all", base)
    params = differing(folders, "params", "diff", base)
    text = page.write(page.Sides(base, head), raw(), locks, metrics, params, pictures(base))
    if args.output:
        files.write_text(args.output, text)
    else:
        print(text, end="")
    stale = [lock for lock in locks if lock.stale]
    if args.check and stale:
        raise cli.UserError(
            f"the dvc.lock of {', '.join(lock.pipeline for lock in stale)} is out of step; "
            f"run {', '.join(f'`{lock.redo}`' for lock in stale)} and commit what it makes"
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m transfer review", description=__doc__)
    add = parser.add_argument
    add("base", help="the commit to compare with, such as main")
    add("--head", default="HEAD", help="the commit to link to for new figures, on GitHub")
    add("--output", type=os.path.abspath, help="a file to write instead of printing")
    add("--check", action="store_true", help="exit with 1 when a dvc.lock is out of step")
    return parser.parse_args()


def commit(name: str) -> str:
    """Its full hash. Raises UserError for what is none, or is not in this clone."""
    done = call("git", "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if done.returncode:
        raise cli.UserError(f"{name}: no such commit here; fetch it, or name another")
    return done.stdout.strip()


def lock(pipeline: str) -> page.Lock:
    """How the dvc.lock beside a dvc.yaml stands. DVC judges all but the code, which counts as
    changed where its meaning did. Data that are not here are taken to be as the lock says. Raises
    UserError for a dvc.yaml that DVC cannot read."""
    folder = Path(pipeline).parent
    if not (folder / "dvc.lock").is_file():
        succeeded(dvc("stage", "list", "--name-only", folder=folder))
        return page.Lock(pipeline, None)
    if not (stale := stale_stages(folder)):
        return page.Lock(pipeline, [])
    # DVC skips what follows a stage that fails, so let it look at each by itself too.
    stale |= stale_stages(folder, "--single-item")
    if "code" in stale:  # it runs after any edit, and its outputs change where the meaning did
        stale = stale - {"code"} | of_other_code(folder)
    graph = succeeded(dvc("dag", "--dot", folder=folder))
    return page.Lock(pipeline, sorted(stale), len(following(graph, stale)))


def stale_stages(folder: Path, *options: str) -> set[str]:
    """Those that `dvc repro --dry` would run. Raises UserError when DVC cannot tell."""
    done = dvc("repro", "--dry", "--allow-missing", "--keep-going", *options, folder=folder)
    # A stage that it would run, and whose data are not here, fails: DVC looks for it in its cache.
    runs = re.findall(r"^Running stage '([^']+)':", done.stdout, re.M)
    fails = re.findall(r"^ERROR: failed to reproduce (.*)", done.stderr, re.M)
    stale = {*runs, *re.findall(r"'([^']+)'", " ".join(fails))}
    if done.returncode and not stale:
        raise cli.UserError(error_line(done))
    return stale


def of_other_code(folder: Path) -> set[str]:
    """The stages whose code, by the hashes in dvc.lock, is not the code that is here."""
    lock = yaml.load((folder / "dvc.lock").read_text(), yaml.CSafeLoader)
    recorded = {
        (stage, Path(dep["path"]).name): dep["md5"]
        for stage, entry in lock["stages"].items()
        for dep in entry.get("deps", [])
        if Path(dep["path"]).parent == Path("data/code")
    }
    scripts = {script for _, script in recorded}
    here = {of: hashlib.md5(code.recorded(of, folder).encode()).hexdigest() for of in scripts}
    return {stage for (stage, script), md5 in recorded.items() if md5 != here[script]}


def pictures(base: str) -> list[page.Picture]:
    """The PNGs kept by git that differ from those of the commit `base`."""
    entries = git("diff", "--name-status", "--no-renames", "-z", base, "--", "*.png").split("\0")
    return [page.Picture(*entry) for entry in zip(entries[1::2], entries[:-1:2], strict=True)]


def raw() -> str | None:
    """The URL below which GitHub shows a commit's files; None when this does not run there."""
    repository = os.environ.get("GITHUB_REPOSITORY")
    return f"{os.environ['GITHUB_SERVER_URL']}/{repository}/raw" if repository else None


def differing(folders: set[Path], *command: str) -> page.Diff:
    """What a DVC command says in each of the DVC repositories."""
    found = {}
    for folder in folders:
        said = json.loads(succeeded(dvc(*command, "--json", folder=folder)) or "{}")
        for file, entries in said.items():
            sides = {key: page.Sides(of.get("old"), of.get("new")) for key, of in entries.items()}
            found[str(folder / file)] = sides
    return found


def dvc(*arguments: str, folder: Path | str = ".") -> subprocess.CompletedProcess[str]:
    return call(sys.executable, "-m", "dvc", *arguments, folder=folder)


def git(*arguments: str) -> str:
    return succeeded(call("git", *arguments))
