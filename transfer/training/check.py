"""Whether the settings fit torch, torchvision and each other, told before anything starts."""

from collections.abc import Iterator
from contextlib import contextmanager

from transfer.cli import UserError
from transfer.images import draw
from transfer.params import Params
from transfer.training import components, models


def check(study: Params) -> None:
    """Raise UserError for a name that torch or torchvision lacks, and for settings that do not fit
    each other."""
    for dataset in study.draw:
        draw.painters(dataset)
    models.check_backbones(study.grid.backbone)
    for recipe in study.grid.recipe:
        with _place(f"train with recipe {recipe}"):
            components.check(study.trained_by(recipe), study.grid.backbone)
    for backbone in study.grid.backbone:
        with _place(f"grid.freezing: {backbone}"):
            for freezing in study.grid.freezing:
                model = models.shape(backbone)
                models.adapt(model, freezing)
                models.freeze(model, freezing)
        with _place(f"pack.size {study.pack.size}: {backbone}"):
            models.check_size(backbone, study.pack.size)


@contextmanager
def _place(where: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UserError(f"params.yaml: {where}: {error}") from None
