"""Show all runs of the grid in one table while they are trained, by `dvc repro` or by workers.

Of each run it has the accuracy on the test images, at the epoch that is best on the validation
images or else the last; or, before it is done, the epochs trained so far.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
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

EVERY = 2.0  # seconds between looks
QUIET = 600.0
"""Seconds without another epoch after which a run counts as interrupted, if its epochs are no
longer than a third of that."""


@dataclass(frozen=True)
class State:
    """A run's. accuracy, record: None before it is done. epochs: trained so far, None if it has not
    begun. going: whether another came lately. seconds: that it took so far, None if unknown."""

    accuracy: float | None = None
    record: Record | None = None
    epochs: int | None = None
    going: bool = False
    seconds: float | None = None


States = dict[Run, State]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m transfer watch", description=__doc__)
    parser.parse_args()
    with Watching(params.load()) as look:
        while True:
            states = look()
            if states and all(state.accuracy is not None for state in states.values()):
                break
            time.sleep(EVERY)


class Watching:
    """The table at the foot of the terminal, as a context; what is printed meanwhile goes above it.
    Gives a function that looks where the runs stand, at most so often."""

    def __init__(self, study: Params) -> None:
        self.study, self.found, self.next = study, States(), 0.0
        self.console = Console()
        self.live = Live(get_renderable=self.table, console=self.console, refresh_per_second=1)

    def __enter__(self) -> Callable[[], States]:
        self.live.start()
        return self.look

    def __exit__(self, *error: object) -> None:
        self.next = 0.0
        self.live.stop()

    def look(self) -> States:
        began = time.monotonic()
        if began > self.next:
            with suppress(OSError, yaml.YAMLError):  # which DVC is just writing
                self.found = look(self.study)
            took = time.monotonic() - began
            self.next = began + max(EVERY, 10 * took)
        return self.found

    def table(self) -> RenderableType:
        return table(self.study, self.look(), self.console.height)


def look(study: Params) -> States:
    """Where each run of the grid stands, by what lies in the working folder."""
    is_stale = run_cache.staleness()
    return {run: _state(run, study, is_stale(run)) for run in all_runs(study.grid)}


def _state(run: Run, study: Params, stale: bool) -> State:
    spent = Time.read(run.time) if run.time.is_file() else None
    there = [] if stale else [run.folder]
    # Those that its group has trained, and that its own stage has not taken yet.
    with suppress(FileNotFoundError):  # of weights that are not there yet
        there += [kept for kept in run_cache.RUN_CACHE.glob(f"{run.name}.*") if _current(run, kept)]
    for folder in there:
        if (folder / RECORD).is_file():
            own = spent and spent.of == files.sha256(folder / RECORD)
            accuracy = chosen(curve_in(folder / CURVE)).test_accuracy
            seconds = spent.seconds if spent and own else None
            return State(accuracy, Record.read(folder / RECORD), seconds=seconds)
    if not spent or spent.epochs is None:
        return State()
    patience = max(QUIET, 3 * spent.seconds / max(1, spent.epochs))
    going = time.time() - run.time.stat().st_mtime < patience
    return State(None, None, spent.epochs, going, spent.seconds)


@cache
def _current(run: Run, kept: Path) -> bool:
    return kept == run_cache.kept(run, run_cache.key(run, params.load()))


def table(study: Params, states: States, height: int) -> RenderableType:
    """A row for each setting, and the runs of each seed side by side. Where the lines do not
    suffice, data sets that nothing is going on with take one."""
    grid, made = study.grid, Table(box=None, pad_edge=False)
    found = defaultdict(State, states)
    for heading in ("data set", "images", "setting", *grid.init):
        made.add_column(heading)
    crowded = len(all_runs(grid)) / len(grid.init) / len(grid.seed) + 4 > height
    for name in grid.dataset:
        own = runs(grid, name)
        if crowded and not any(found[run].going for run in own):
            done = sum(found[run].accuracy is not None for run in own)
            made.add_row(name, "", f"{done} of {len(own)} runs done")
            continue
        for setting in dict.fromkeys(run.setting for run in own):
            cells = [
                Text(" ").join(_cell(found[setting.run(init, seed)], study, setting.recipe)
                               for seed in grid.seed)
                for init in grid.init
            ]  # fmt: skip
            made.add_row(setting.dataset, str(setting.images), setting.label, *cells)
    records = [state.record for state in states.values() if state.record]
    lines = [summary(list(states.values())), mixed_warning(mixed(records))]
    return Group(made, *map(Text, filter(None, lines)))


def _cell(state: State, study: Params, recipe: str) -> Text:
    if state.accuracy is not None:
        return Text(f"{state.accuracy:.3f}", "green")
    if state.epochs is None:
        return Text("·", "dim")
    words = f"{state.epochs}/{study.trained_by(recipe).epochs}"
    return Text(words, "yellow" if state.going else "dim")


def summary(states: list[State]) -> str:
    """How many runs are done, and how long the others will take at the present pace."""
    done = [state for state in states if state.accuracy is not None]
    going = sum(state.going for state in states)
    left = len(states) - len(done) - going
    words = f"{len(done)} of {len(states)} runs done, {going} in training, {left} left"
    took = [state.seconds for state in done if state.seconds is not None]
    if not (took and going):
        return words
    spent = sum(state.seconds or 0.0 for state in states if state.going)
    to_go = max(0.0, sum(took) / len(took) * (going + left) - spent) / going
    return f"{words}; about {cli.span(to_go)} to go"
