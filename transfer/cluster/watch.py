"""Show all runs of the grid in one table while `dvc repro` or workers train them.

A finished run shows its test accuracy, at the epoch that is best on the validation images or else
the last; an unfinished one the number of epochs trained so far.
"""

import argparse
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from transfer import cli, files, params
from transfer.evidence.results import mixed, mixed_warning
from transfer.params import Params
from transfer.runs import CURVE, RECORD, Run, all_runs, runs
from transfer.training import run_cache
from transfer.training.record import Record, Time, chosen, curve_in

EVERY = 2.0  # seconds between updates, or ten times what an update takes
QUIET = 600.0
"""Seconds without a new epoch, or three times an epoch's if that is longer, after which a run
counts as interrupted."""


@dataclass(frozen=True)
class State:
    """How far a run is. accuracy, record: None before it is finished. epochs: trained so far, None
    before it starts. training: whether it is being trained. seconds: spent so far, None if unknown.
    """

    accuracy: float | None = None
    record: Record | None = None
    epochs: int | None = None
    training: bool = False
    seconds: float | None = None


States = dict[Run, State]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m transfer watch", description=__doc__)
    parser.parse_args()
    study, states, console = params.load(), States(), Console()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            began = time.monotonic()
            states = read_states(study, states)
            live.update(table(study, states, console.height), refresh=True)
            if states and all(state.accuracy is not None for state in states.values()):
                break
            time.sleep(max(EVERY, 10 * (time.monotonic() - began)))


def read_states(study: Params, before: States) -> States:
    """The state of each run of the grid, from the files in the working folder; `before` if one of
    them is being written."""
    try:
        is_stale = run_cache.staleness()
        return {run: _state(run, study, is_stale(run)) for run in all_runs(study.grid)}
    except (OSError, yaml.YAMLError):
        return before


def _state(run: Run, study: Params, stale: bool) -> State:
    time_file = Time.read(run.time) if run.time.is_file() else None
    folders = [] if stale else [run.folder]
    # Results that its group has trained, and that its own stage has not taken yet.
    with suppress(FileNotFoundError):  # weights that are not made yet
        cached = run_cache.RUN_CACHE.glob(f"{run.name}.*")
        folders += [folder for folder in cached if _current(run, folder)]
    for folder in folders:
        if (folder / RECORD).is_file():
            timed = time_file and time_file.of == files.sha256(folder / RECORD)
            accuracy = chosen(curve_in(folder / CURVE)).test_accuracy
            seconds = time_file.seconds if time_file and timed else None
            return State(accuracy, Record.read(folder / RECORD), seconds=seconds)
    if not time_file or time_file.epochs is None:
        return State()
    patience = max(QUIET, 3 * time_file.seconds / max(1, time_file.epochs))
    training = time.time() - run.time.stat().st_mtime < patience
    return State(None, None, time_file.epochs, training, time_file.seconds)


@cache
def _current(run: Run, folder: Path) -> bool:
    return folder == run_cache.kept(run, run_cache.key(run, params.load()))


def table(study: Params, states: States, height: int) -> RenderableType:
    """A row for each setting, with the runs of all seeds. If the terminal is too low for that, data
    sets without a run in training take one row."""
    grid, rows = study.grid, Table(box=None, pad_edge=False)
    state_of = defaultdict(State, states)
    for heading in ("data set", "images", "setting", *grid.init):
        rows.add_column(heading)
    too_high = len(all_runs(grid)) / len(grid.init) / len(grid.seed) + 4 > height
    for name in grid.dataset:
        members = runs(grid, name)
        if too_high and not any(state_of[run].training for run in members):
            done = sum(state_of[run].accuracy is not None for run in members)
            rows.add_row(name, "", f"{done} of {len(members)} runs done")
            continue
        for setting in dict.fromkeys(run.setting for run in members):
            cells = [
                Text(" ").join(_cell(state_of[setting.run(init, seed)], study, setting.recipe)
                               for seed in grid.seed)
                for init in grid.init
            ]  # fmt: skip
            rows.add_row(setting.dataset, str(setting.images), setting.label, *cells)
    records = [state.record for state in states.values() if state.record]
    lines = [summary(list(states.values())), mixed_warning(mixed(records))]
    return Group(rows, *map(Text, filter(None, lines)))


def _cell(state: State, study: Params, recipe: str) -> Text:
    if state.accuracy is not None:
        return Text(f"{state.accuracy:.3f}", "green")
    if state.epochs is None:
        return Text("·", "dim")
    progress = f"{state.epochs}/{study.trained_by(recipe).epochs}"
    return Text(progress, "yellow" if state.training else "dim")


def summary(states: list[State]) -> str:
    """How many runs are done, and how long the others should take at the present rate."""
    done = [state for state in states if state.accuracy is not None]
    training = sum(state.training for state in states)
    left = len(states) - len(done) - training
    text = f"{len(done)} of {len(states)} runs done, {training} in training, {left} left"
    took = [state.seconds for state in done if state.seconds is not None]
    if not (took and training):
        return text
    spent = sum(state.seconds or 0.0 for state in states if state.training)
    to_go = max(0.0, sum(took) / len(took) * (training + left) - spent) / training
    return f"{text}; about {cli.span(to_go)} to go"
