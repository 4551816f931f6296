"""Summarise as a markdown comment how a change affects the study: whether each dvc.lock is up to
date, and which recommendations, accuracies, settings and figures differ. It compares the working
tree with a commit, and needs neither data nor a GPU."""

import argparse
import json
import os
from pathlib import Path

from transfer import cli, files
from transfer.commands import call, dvc, succeeded
from transfer.review import page
from transfer.review.lock import compare


def main() -> None:
    args = parse()
    base, head = commit(args.base), commit(args.head)
    os.chdir(git("rev-parse", "--show-toplevel").strip())
    pipelines = git("ls-files", "dvc.yaml", "*/dvc.yaml").split()
    locks = [compare(pipeline) for pipeline in pipelines]
    # The sample is a DVC repository of its own.
    folders = {dvc_root(Path(pipeline)) for pipeline in pipelines}
    metrics = differing(folders, "metrics", "diff", "--all", base)
    params = differing(folders, "params", "diff", base)
    text = page.write(page.Sides(base, head), raw_url(), locks, metrics, params, pictures(base))
    if args.output:
        files.write_text(args.output, text)
    else:
        print(text, end="")
    stale = [lock for lock in locks if lock.stale]
    if args.check and stale:
        raise cli.UserError(
            f"the dvc.lock of {', '.join(lock.pipeline for lock in stale)} is out of date; "
            f"run {', '.join(f'`{lock.redo}`' for lock in stale)} and commit the results"
        )


def dvc_root(pipeline: Path) -> Path:
    """The DVC repository of a dvc.yaml."""
    return next(folder for folder in pipeline.parents if (folder / ".dvc").is_dir())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m transfer review", description=__doc__)
    add = parser.add_argument
    add("base", help="the commit to compare with, such as main")
    add("--head", default="HEAD", help="the commit whose figures the comment shows (default: HEAD)")
    add("--output", type=os.path.abspath, help="the file to write (default: print)")
    add("--check", action="store_true", help="exit with 1 if a dvc.lock is out of date")
    return parser.parse_args()


def commit(name: str) -> str:
    """Its full hash. Raises UserError if this clone does not have it."""
    done = call("git", "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if done.returncode:
        raise cli.UserError(f"{name}: no such commit here; fetch it, or name another")
    return done.stdout.strip()


def pictures(base: str) -> list[page.Picture]:
    """The PNGs in git that differ from the commit `base`."""
    entries = git("diff", "--name-status", "--no-renames", "-z", base, "--", "*.png").split("\0")
    return [page.Picture(*entry) for entry in zip(entries[1::2], entries[:-1:2], strict=True)]


def raw_url() -> str | None:
    """The URL of the repository's files on GitHub; None outside GitHub Actions."""
    repository = os.environ.get("GITHUB_REPOSITORY")
    return f"{os.environ['GITHUB_SERVER_URL']}/{repository}/raw" if repository else None


def differing(folders: set[Path], *command: str) -> page.Diff:
    """The output of a DVC command in each of the DVC repositories."""
    diff = {}
    for folder in folders:
        output = json.loads(succeeded(dvc(*command, "--json", folder=folder)) or "{}")
        for file, entries in output.items():
            diff[str(folder / file)] = {
                key: page.Sides(values.get("old"), values.get("new"))
                for key, values in entries.items()
            }
    return diff


def git(*arguments: str) -> str:
    return succeeded(call("git", *arguments))
