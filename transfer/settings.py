"""What the stage `params` writes to data/settings: what other stages depend on, by its meaning."""

from itertools import product
from typing import Any

from transfer.files import json_text
from transfer.params import Params


def texts(study: Params) -> dict[str, str]:
    """File → content, of all but costs.json, which needs PyTorch. That differs only where settings
    of runs, or grid or pack, do, on which what reads it depends anyway."""
    values: dict[str, Any] = {
        # What clear() goes by: where this is of another commit, DVC runs the stage again.
        "study.json": [study.grid.model_dump(), list(study.datasets)],
    }
    values["datasets.json"] = of_datasets(study, "title", "table", "quadrant")
    for name, entry in of_datasets(study, "folders", "count").items():
        values[f"split/{name}.json"] = entry
    for recipe, freezing in product(study.grid.recipe, study.grid.freezing):
        settings = study.trained_by(recipe).deciding(freezing)
        values[f"{recipe}-{freezing}.json"] = settings
    written = {name: json_text(value) for name, value in values.items()}
    return {"checked": "params.yaml was checked\n"} | written


def of_datasets(study: Params, *keys: str) -> dict[str, dict[str, Any]]:
    """These settings of each data set, as JSON takes them."""
    sets = study.datasets.items()
    return {name: one.model_dump(mode="json", include=set(keys)) for name, one in sets}
