"""Accept an edit of the code that is meant to change no result. It trains a few of the stale runs
again, compares their results with the recorded ones, and if all bytes are equal, records the other
stale runs as up to date."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import yaml

from transfer import cli, files, params
from transfer.commands import dvc, own_path, succeeded
from transfer.runs import RECORD, all_runs

CHECKED = ("pretrain", "train", "similarity")
"""The kinds of stage that take long, of which a few are made again."""
BEFORE = ("download", "draw", "split", "pack", "weights")
"""The kinds that those build on."""
ELSEWHERE = Path("data/.accept.part")
PROVENANCE = ("arithmetic", "device", "threads", "versions")
"""What a run's record says of how it was trained, which is no result."""


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.lock. size: of what it depends on, in bytes; the
    cheapest is taken to be that with the least."""

    name: str
    cmd: str
    outs: list[str]
    size: int

    @property
    def kind(self) -> str:
        return self.name.partition("@")[0]


def main() -> None:
    args = parse()
    if not Path("dvc.yaml").is_file():
        raise cli.UserError("dvc.yaml: no such file; run from the folder of the study")
    os.environ["PATH"] = own_path()
    make("params")
    if first := [name for name in stale()[0] if name.startswith(BEFORE)]:
        make(*first)
    edited, other = stale()
    stages = {stage.name: stage for stage in locked() if stage.kind in CHECKED}
    by_code = [stages[name] for name in edited if name in stages]
    others = sorted(name for name in other if name.startswith(CHECKED))
    print(f"{len(by_code)} stages that take long would run again because of the code alone")
    if others:
        print(
            f"{len(others)} others would run in any case, such as {others[0]} ({other[others[0]]})"
        )
    devices: set[str] = set()
    chosen = choose(by_code or [s for s in stages.values() if s.name not in other], args.runs)
    if not chosen:
        raise cli.UserError("no run is here to compare with one of this code; run `dvc repro`")
    for number, stage in enumerate(chosen, 1):
        print(f"{number} of {len(chosen)}: {stage.name} again", flush=True)
        devices |= check(stage)
    if by_code:
        run_dvc("commit", "--force", *(stage.name for stage in by_code))
    if not others:
        make()
    print(summary(chosen, by_code, devices))
    if others:
        print("`dvc repro` makes the others, and then the pages")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m transfer accept", description=__doc__)
    help = "how many runs to train again, or all (default: one for each way of freezing and start)"
    parser.add_argument("--runs", type=count, metavar="N|all", help=help)
    return parser.parse_args()


def count(text: str) -> int:
    if text != "all" and not (text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError("give 1 or more, or all")
    return sys.maxsize if text == "all" else int(text)


def make(*stages: str) -> None:
    """Bring stages up to date, or without any name all. Raises UserError where DVC fails."""
    run_dvc("repro", *stages)


def run_dvc(*arguments: str) -> None:
    command = [sys.executable, "-m", "transfer.cluster.dvc", *arguments]
    if subprocess.run(command).returncode:
        raise cli.UserError(f"`dvc {arguments[0]}` failed; see above")


def stale() -> tuple[list[str], dict[str, str]]:
    """The stages that DVC would run because of their code alone; and those that it would run for
    other reasons, with the first of these."""
    by_code, other = [], {}
    for name, reasons in json.loads(succeeded(dvc("status", "--json"))).items():
        changed = list(chain.from_iterable(map(why, reasons)))
        left = [reason for reason in changed if not reason.startswith("data/code/")]
        if left:
            other[name] = left[0]
        else:
            by_code.append(name)
    return by_code, other


def why(reason: Any) -> Iterator[str]:
    """One of the reasons that `dvc status` gives, in words that begin with a path."""
    if isinstance(reason, str):
        yield reason
        return
    for paths in reason.values():
        for path, how in paths.items():
            yield f"{path}: {how}" if isinstance(how, str) else f"{path} changed"


def locked() -> list[Stage]:
    lock = yaml.load(Path("dvc.lock").read_text(encoding="utf-8"), yaml.CSafeLoader)
    return [
        Stage(
            name,
            entry["cmd"],
            [out["path"] for out in entry.get("outs", ())],
            sum(dep.get("size", 0) for dep in entry.get("deps", ())),
        )
        for name, entry in lock["stages"].items()
    ]


def choose(stages: list[Stage], most: int | None) -> list[Stage]:
    """The cheapest of each kind, and of runs of each way of freezing and kind of start; or `most`
    runs, which are taken from these in turn."""
    runs = {f"train@{run.name}": run for run in all_runs(params.load().grid)}
    groups: dict[tuple[str, ...], list[Stage]] = {}
    for stage in sorted(stages, key=lambda stage: stage.size):
        run = runs.get(stage.name)
        key = (run.freezing, run.init) if run else (stage.kind,)
        groups.setdefault(key, []).append(stage)
    trained = [group for group in groups.values() if group[0].name in runs]
    in_turn = [stage for turn in zip_longest(*trained) for stage in turn if stage]
    others = [group[0] for group in groups.values() if group[0].name not in runs]
    return others + in_turn[: most or len(trained)]


def check(stage: Stage) -> set[str]:
    """Make a stage again in a folder of its own, and return what a run was trained on. Raises
    UserError where the results are not the recorded ones."""
    command = stage.cmd + " --alone" * (stage.kind == "train")
    with elsewhere() as folder, open(folder / "log", "w+b") as log:
        done = subprocess.run(command, shell=True, cwd=folder, stdout=log, stderr=log)
        if done.returncode:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace"))
            raise cli.UserError(f"{stage.name} fails with this code, so nothing is recorded")
        found = (first_difference(Path(out), folder / out) for out in stage.outs)
        if difference := next(filter(None, found), ""):
            raise cli.UserError(
                f"{stage.name} gives another result, so nothing is recorded: {difference}. "
                "`dvc repro` makes all again"
            )
        records = [
            files.read_json(path) for out in stage.outs for path in (folder / out).glob(RECORD)
        ]
        return {f"{record['device']} ({record['arithmetic']})" for record in records}


@contextmanager
def elsewhere() -> Iterator[Path]:
    """A folder in which stages find what they need here, and write beside it."""
    files.remove(ELSEWHERE)
    try:
        whole = ["stages", "transfer", "params.yaml", "data/code", "data/packed", "data/settings"]
        for name in [*whole, *map(str, Path("data/weights").glob("*.pth"))]:
            link = ELSEWHERE / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(name).resolve())
        yield ELSEWHERE
    finally:
        files.remove(ELSEWHERE)


def first_difference(recorded: Path, made: Path) -> str:
    """Where two files or folders differ first, or ''. A run's provenance is no result."""
    if recorded.is_dir():
        names = sorted({p.relative_to(top) for top in (recorded, made) for p in top.rglob("*")})
        found = (first_difference(recorded / name, made / name) for name in names)
        return next(filter(None, found), "")
    if not (recorded.is_file() and made.is_file()):
        return "" if recorded.exists() and made.exists() else f"{recorded} is on one side only"
    before, after = result(recorded), result(made)
    lines = zip_longest(before.splitlines(), after.splitlines(), fillvalue=b"")
    line = next((number for number, (a, b) in enumerate(lines, 1) if a != b), None)
    if line is None:
        return ""
    return f"{recorded}, line {line}" if recorded.suffix in (".csv", ".json") else str(recorded)


def result(file: Path) -> bytes:
    """What a file holds, but for the provenance in a run's record."""
    if file.name != RECORD:
        return file.read_bytes()
    kept = {key: value for key, value in files.read_json(file).items() if key not in PROVENANCE}
    return files.json_text(kept).encode()


def summary(chosen: list[Stage], by_code: list[Stage], devices: set[str]) -> str:
    """What was recorded, and what that rests on."""
    names, where = ", ".join(stage.name for stage in chosen), " and ".join(sorted(devices))
    rests = f"{len(chosen)} were made again, on {where}, and gave the same bytes: {names}"
    if not by_code:
        return f"no stage that takes long was stale; {rests}"
    left = len({stage.name for stage in by_code} - {stage.name for stage in chosen})
    return f"{len(by_code)} stages are recorded as up to date; {rests}; the other {left} were not"
