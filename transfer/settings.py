"""The texts that the stage `params` writes to data/settings, for other stages to depend on."""

from itertools import product
from typing import Any

from transfer.files import json_text
from transfer.params import Params


def texts(study: Params) -> dict[str, str]:
    """File → content, of all files but costs.json, which needs PyTorch. costs.json changes only
    with settings of runs, grid or pack, on which the stages that read it depend anyway."""
    values: dict[str, Any] = {
        # A text of its own for each set of runs, so that the stage runs, and clears others away.
        "study.json": [study.grid.model_dump(), list(study.datasets)],
        "datasets.json": of_datasets(study, "title", "table", "quadrant"),
    }
    for name, entry in of_datasets(study, "folders", "count").items():
        values[f"split/{name}.json"] = entry
    for recipe, freezing in product(study.grid.recipe, study.grid.freezing):
        values[f"{recipe}-{freezing}.json"] = study.trained_by(recipe).deciding(freezing)
    written = {name: json_text(value) for name, value in values.items()}
    return {"checked": "params.yaml was checked\n"} | written


def of_datasets(study: Params, *keys: str) -> dict[str, dict[str, Any]]:
    """Data set → its settings of these keys, as JSON takes them."""
    return {
        name: dataset.model_dump(mode="json", include=set(keys))
        for name, dataset in study.datasets.items()
    }
