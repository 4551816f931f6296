"""Write what a change does to the study as one markdown comment: whether each dvc.lock is in step,
and which recommendations, accuracies, settings and figures differ. It compares the working tree
with a commit, and needs neither data nor a GPU."""

import argparse
import json
import os
from pathlib import Path

from transfer import cli, files
from transfer.commands import call, dvc, succeeded
from transfer.review import lock, page


def main() -> None:
    args = parse()
    base, head = commit(args.base), commit(args.head)
    os.chdir(git("rev-parse", "--show-toplevel").strip())
    pipelines = git("ls-files", "dvc.yaml", "*/dvc.yaml").split()
    locks = [lock.compare(pipeline) for pipeline in pipelines]
    # The sample is a DVC repository of its own.
    folders = {next(at for at in Path(p).parents if (at / ".dvc").is_dir()) for p in pipelines}
    metrics = differing(folders, "metrics", "diff", "--all", base)
    params = differing(folders, "params", "diff", base)
    text = page.write(page.Sides(base, head), raw(), locks, metrics, params, pictures(base))
    if args.output:
        files.write_text(args.output, text)
    else:
        print(text, end="")
    stale = [one for one in locks if one.stale]
    if args.check and stale:
        raise cli.UserError(
            f"the dvc.lock of {', '.join(one.pipeline for one in stale)} is out of step; "
            f"run {', '.join(f'`{one.redo}`' for one in stale)} and commit what it makes"
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


def git(*arguments: str) -> str:
    return succeeded(call("git", *arguments))
