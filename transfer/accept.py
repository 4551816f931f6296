"""Accept an edit of the code that is meant to change no result. It makes a few of the stale stages
again. If their results equal the recorded ones byte for byte, it records the other stages that are
stale by the code alone as up to date."""

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

SLOW = ("pretrain", "train", "similarity")
"""Kinds of stage of which only a few are made again."""
BEFORE = ("download", "draw", "split", "pack", "weights")
"""Kinds that these depend on."""
SCRATCH = Path("data/.accept.part")
PROVENANCE = ("arithmetic", "device", "threads", "versions")
"""Fields of a run's record that are not results."""


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.lock. size: bytes of its inputs, by which its cost is judged."""

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
    code_only, reasons = stale()
    stages = {stage.name: stage for stage in recorded() if stage.kind in SLOW}
    by_code = [stages[name] for name in code_only if name in stages]
    others = sorted(name for name in reasons if name.startswith(SLOW))
    print(f"{len(by_code)} slow stages are stale because of the code alone")
    if others:
        example = f"{others[0]} ({reasons[others[0]]})"
        print(f"{len(others)} are stale for other reasons, such as {example}")
    chosen = choose(by_code or [s for s in stages.values() if s.name not in reasons], args.runs)
    if not chosen:
        raise cli.UserError("there is no recorded run to compare with; run `dvc repro`")
    devices: set[str] = set()
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
    help = "runs to train again, or all (default: one for each freezing and initial weights)"
    parser.add_argument("--runs", type=count, metavar="N|all", help=help)
    return parser.parse_args()


def count(text: str) -> int:
    if text != "all" and not (text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError("give 1 or more, or all")
    return sys.maxsize if text == "all" else int(text)


def make(*stages: str) -> None:
    """Bring these stages up to date, or all if none is named. Raises UserError if DVC fails."""
    run_dvc("repro", *stages)


def run_dvc(*arguments: str) -> None:
    command = [sys.executable, "-m", "transfer.cluster.dvc", *arguments]
    if subprocess.run(command).returncode:
        raise cli.UserError(f"`dvc {arguments[0]}` failed; see above")


def stale() -> tuple[list[str], dict[str, str]]:
    """The stages that are stale because of their code alone; and the other stale stages, each with
    another reason."""
    code_only, others = [], {}
    for name, entries in json.loads(succeeded(dvc("status", "--json"))).items():
        reasons = chain.from_iterable(map(changes, entries))
        other = next((reason for reason in reasons if not reason.startswith("data/code/")), None)
        if other:
            others[name] = other
        else:
            code_only.append(name)
    return code_only, others


def changes(entry: Any) -> Iterator[str]:
    """An entry of `dvc status` in words that begin with a path."""
    if isinstance(entry, str):
        yield entry
        return
    for paths in entry.values():
        for path, change in paths.items():
            yield f"{path}: {change}" if isinstance(change, str) else f"{path} changed"


def recorded() -> list[Stage]:
    """The stages of dvc.lock."""
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
    """The cheapest stage of each kind; of runs, the cheapest for each freezing and initial weights,
    or `most` of them, taken from these groups in turn."""
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
    """Make a stage again in a scratch folder, and return the devices of its runs. Raises UserError
    if it fails or its results differ from the recorded ones."""
    command = stage.cmd + " --alone" * (stage.kind == "train")
    with scratch() as folder, open(folder / "log", "w+b") as log:
        done = subprocess.run(command, shell=True, cwd=folder, stdout=log, stderr=log)
        if done.returncode:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace"))
            raise cli.UserError(
                f"{stage.name} fails with this code, so nothing is recorded; see above"
            )
        differences = (first_difference(Path(out), folder / out) for out in stage.outs)
        if difference := next(filter(None, differences), ""):
            raise cli.UserError(
                f"{stage.name} gives another result, so nothing is recorded: {difference}; "
                "`dvc repro` makes all stages again"
            )
        records = [
            files.read_json(path) for out in stage.outs for path in (folder / out).glob(RECORD)
        ]
        return {f"{record['device']} ({record['arithmetic']})" for record in records}


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder with links to the inputs of stages, in which they write their outputs."""
    files.remove(SCRATCH)
    try:
        inputs = ["stages", "transfer", "params.yaml", "data/code", "data/packed", "data/settings"]
        for name in [*inputs, *map(str, Path("data/weights").glob("*.pth"))]:
            link = SCRATCH / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(name).resolve())
        yield SCRATCH
    finally:
        files.remove(SCRATCH)


def first_difference(recorded: Path, made: Path) -> str:
    """The first place where two files or folders differ, provenance aside; '' if none."""
    if recorded.is_dir():
        names = sorted({p.relative_to(top) for top in (recorded, made) for p in top.rglob("*")})
        differences = (first_difference(recorded / name, made / name) for name in names)
        return next(filter(None, differences), "")
    if not (recorded.is_file() and made.is_file()):
        return "" if recorded.exists() and made.exists() else f"{recorded} is on one side only"
    before, after = result(recorded), result(made)
    lines = zip_longest(before.splitlines(), after.splitlines(), fillvalue=b"")
    line = next((number for number, (a, b) in enumerate(lines, 1) if a != b), None)
    if line is None:
        return ""
    return f"{recorded}, line {line}" if recorded.suffix in (".csv", ".json") else str(recorded)


def result(file: Path) -> bytes:
    """A file's content, without the provenance in a run's record."""
    if file.name != RECORD:
        return file.read_bytes()
    kept = {key: value for key, value in files.read_json(file).items() if key not in PROVENANCE}
    return files.json_text(kept).encode()


def summary(chosen: list[Stage], by_code: list[Stage], devices: set[str]) -> str:
    """What was recorded, and on what evidence."""
    names, where = ", ".join(stage.name for stage in chosen), " and ".join(sorted(devices))
    evidence = f"{len(chosen)} were made again on {where} and gave the same bytes: {names}"
    if not by_code:
        return f"no slow stage was stale; {evidence}"
    left = len({stage.name for stage in by_code} - {stage.name for stage in chosen})
    return (
        f"{len(by_code)} stages are recorded as up to date; {evidence}; the other {left} were not "
        "made again"
    )
