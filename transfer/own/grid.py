"""A first grid for images of one's own: what is worth trying in the time there is."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from transfer.cli import span
from transfer.params import Params
from transfer.runs import runs, short
from transfer.training import preflight
from transfer.training.preflight import Speed

VIEWS = 50_000
"""Training images that a run sees at most, an epoch after another."""
BATCHES = {1_000: 4, 10_000: 16}
"""Up to so many training images the batch; beyond them LARGE."""
LARGE = 64
FEW_EPOCHS, FEWEST_EPOCHS, FEW_SEEDS = 10, 5, 3
FINETUNING, RATES = "finetuning", "higher learning rates"


@dataclass(frozen=True)
class Plan:
    """study: with the grid and the training proposed. seconds: what it takes here. left: what was
    left out to take less, each with the seconds that it would take more."""

    study: Params
    seconds: float
    left: dict[str, float]


def fitting(
    study: Params, name: str, train: int, predicted: int, speeds: dict[str, Speed], limit: float
) -> Plan:
    """The largest of some grids that takes no longer than the limit, in seconds, for a data set of
    so many training images and images that are predicted; the smallest, if none does.

    The more images, the larger the batches and the fewer the epochs (in the manner of BiT's rule,
    Kolesnikov 2020). What is left out first is what least often changes the answer: baselines from
    random weights, then the slower backbones, epochs, seeds, more epochs, all learning rates but
    the lowest (which finetuning needs), and finetuning, so that all rates are tried frozen.
    """
    epochs = min(study.train.epochs, max(FEWEST_EPOCHS, round(VIEWS / train)))
    batch = next((size for most, size in BATCHES.items() if train <= most), LARGE)
    larger = max(study.train.batch_size, batch)
    plan = changed(study, train={"epochs": epochs, "batch_size": larger})
    images = {name: (train, predicted)}
    left: dict[str, float] = {}
    seconds = preflight.seconds(plan, images, speeds)
    for what, smaller in cuts(plan, speeds):
        if seconds <= limit:
            break
        before, plan = seconds, smaller
        seconds = preflight.seconds(plan, images, speeds)
        if what == FINETUNING:  # at any rate
            before += left.pop(RATES, 0.0)
        left[what] = before - seconds
    return Plan(plan, seconds, left)


def cuts(study: Params, speeds: dict[str, Speed]) -> Iterator[tuple[str, Params]]:
    """What may be left out, one after another, and the study without it and all before it."""
    if len(study.grid.init) > 1 and "pretrained" in study.grid.init:
        study = changed(study, grid={"init": ["pretrained"]})
        yield "baselines from random weights", study
    if len(study.grid.backbone) > 1:
        fast = min(study.grid.backbone, key=lambda backbone: speeds[backbone].step)
        others = [short(name) for name in study.grid.backbone if name != fast]
        study = changed(study, grid={"backbone": [fast]})
        yield " and ".join(others), study
    if study.train.epochs > FEW_EPOCHS:
        study = changed(study, train={"epochs": FEW_EPOCHS})
        yield f"epochs beyond {FEW_EPOCHS}", study
    if len(study.grid.seed) > FEW_SEEDS:
        study = changed(study, grid={"seed": study.grid.seed[:FEW_SEEDS]})
        yield f"seeds beyond {FEW_SEEDS}", study
    if study.train.epochs > FEWEST_EPOCHS:
        study = changed(study, train={"epochs": FEWEST_EPOCHS})
        yield f"epochs beyond {FEWEST_EPOCHS}", study
    if len(study.grid.freezing) > 1 and "frozen" in study.grid.freezing:
        if len(study.grid.lr) > 1:
            yield RATES, changed(study, grid={"lr": [min(study.grid.lr)]})
        # Frozen runs at all rates share their passes.
        yield FINETUNING, changed(study, grid={"freezing": ["frozen"]})


def changed(study: Params, **sections: dict[str, Any]) -> Params:
    """With those keys of its sections; the schedule's steps keep their share of the epochs."""
    new = dict(sections)
    schedule, epochs = study.train.schedule, sections.get("train", {}).get("epochs")
    if epochs and "step_size" in schedule.options:
        step = max(1, round(schedule.options["step_size"] * epochs / study.train.epochs))
        options = schedule.options | {"step_size": step}
        new["train"] = new["train"] | {"schedule": replace(schedule, options=options)}
    return study.model_copy(
        update={
            section: getattr(study, section).model_copy(update=values)
            for section, values in new.items()
        }
    )


def described(plan: Plan, name: str, limit: float) -> list[str]:
    """What is to be tried, and what was left out, as lines for a terminal and for params.yaml."""
    grid, train = plan.study.grid, plan.study.train
    networks, rates = map(short, grid.backbone), (f"{rate:g}" for rate in grid.lr)
    lines = [
        f"to try: {', '.join(networks)}; {', '.join(grid.freezing)}; rates {', '.join(rates)}; "
        f"from {', '.join(grid.init)} weights; {len(grid.seed)} seeds, {train.epochs} epochs, "
        f"batches of {train.batch_size}: {len(runs(grid, name))} runs"
    ]
    left = {what: seconds for what, seconds in plan.left.items() if what != FINETUNING}
    if left:
        words = ", ".join(f"{what} ({span(seconds)} more)" for what, seconds in left.items())
        lines.append(
            f"left out, to take no more than {span(limit)}: {words}; --hours or --grid paper takes "
            "more"
        )
    if FINETUNING in plan.left:
        lines.append(
            "freeze or finetune? is not asked: finetuning would take "
            f"{span(plan.left[FINETUNING])} more; --hours allows it"
        )
    if plan.seconds > limit:
        lines.append(f"note: this takes more than the {span(limit)} asked for")
    return lines
