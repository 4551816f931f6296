"""The runs of a grid that fit into a time, and the page of what they say.

On each data set the settings race, seed by seed (see transfer.evidence.race), at the grid's first
size.
"""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from transfer import cli, files
from transfer.evidence import choices, compare, race, scores, trained
from transfer.evidence.arms import About, Arms, Scored
from transfer.evidence.race import Race
from transfer.images.audit import Audit
from transfer.pages import recommendation
from transfer.pages.recommendation import Advice, cost_of
from transfer.params import Folders, Params
from transfer.runs import PREDICTIONS, Run, at_first_size
from transfer.training import predictions
from transfer.training.record import Record

PAGE = Path("metrics/budget.md")
COSTS = "data/settings/costs.json"
IsMade = Callable[[Run], bool]


def check(study: Params) -> None:
    """Raises UserError for a study whose settings cannot race."""
    own = [
        isinstance(where := study.datasets[name].folders, Folders) and where.validation
        for name in study.grid.dataset
    ]
    if not study.split.validation and not all(own):
        raise cli.UserError(
            "--budget leaves out settings by their validation images, and there are none: give "
            "split.validation in params.yaml, such as 0.2"
        )


def rounds(study: Params, is_made: IsMade) -> Iterator[list[Run]]:
    """For each seed the runs of the settings that are still in their race when it is asked for:
    first those that cost least, which are the frozen ones and then goes by operations."""
    costs = files.read_json(COSTS)

    def cost(run: Run) -> tuple[bool, int]:
        return run.freezing != "frozen", costs[cost_of(run)]["train"]

    for seed in study.grid.seed:
        runners = [
            one
            for name in study.grid.dataset
            for one in of_dataset(study, name, is_made).runners
            if not one.behind
        ]
        yield sorted((one.place.run(one.start, seed) for one in runners), key=cost)


def of_dataset(study: Params, name: str, is_made: IsMade) -> Race:
    grid, audit = study.grid, Audit.of(name)
    settings = [(place, start) for place in at_first_size(grid, name) for start in grid.start]
    share = audit.redrawn.validation if audit.redrawn else 0.0

    def read(run: Run) -> Scored | None:
        return scored(run, study.evidence.select_by) if is_made(run) else None

    return race.of(settings, grid.seed, read, share / (1 - share))


@cache
def scored(run: Run, select_by: str) -> Scored:
    measure = scores.measure(select_by, Record.of(run).counts["train"])
    return Scored.of(predictions.load(run.written(PREDICTIONS)), measure)


def page(study: Params, is_made: IsMade, seconds: float) -> str:
    """What to take by what was made in that time. Raises UserError if nothing was."""
    races = {name: of_dataset(study, name, is_made) for name in study.grid.dataset}
    held = {name: own for name, own in races.items() if own.finalists}
    if not held:
        raise cli.UserError(f"no run ended within {cli.span(seconds)}; give --budget more")
    runners = [one for own in races.values() for one in own.runners]
    made, asked = sum(len(one.runs) for one in runners), len(runners) * len(study.grid.seed)
    costs = files.read_json(COSTS)
    advices = [advice(study, name, own, costs) for name, own in held.items()]
    ran = [one.place.run(one.start, seed) for one in runners for seed in study.grid.seed]
    mixed = trained.mixed(Record.of(run) for run in ran if is_made(run))
    given = cli.span(seconds)
    note = f"This race had {given}. Of {asked} runs, {made} are made; dvc repro makes the rest."
    for name in races.keys() - held.keys():
        note += f" Of {study.datasets[name].title}, none is."
    return recommendation.write(advices, mixed, note)


def advice(study: Params, name: str, own: Race, costs: dict[str, dict[str, int]]) -> Advice:
    """Of those that are still in the race, by the rounds that all of them have."""
    seeds = study.grid.seed[: max(1, own.rounds)]
    study = study.model_copy(update={"grid": study.grid.model_copy(update={"seed": seeds})})
    first = own.finalists[0]
    about = About.of(first.place.run(first.start, seeds[0]), study.evidence.select_by)
    arms = Arms(
        study.grid,
        {name: about._replace(leaked=[])},
        lambda run: scored(run, study.evidence.select_by),
    )
    rows = []
    for place in dict.fromkeys(one.place for one in own.finalists):
        starts = [one.start for one in own.finalists if one.place == place]
        rows.append(compare.row(place, starts, arms))
    found = choices.of(rows, name, arms, study.evidence.margin)
    return Advice.of(found, about.measure, study, costs, similar=[], race=own)
