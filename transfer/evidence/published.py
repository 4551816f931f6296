"""The paper's printed numbers, its Tables 1 to 4."""

from pathlib import Path

import yaml

Published = dict[str, dict[float, dict[str, list[float]]]]
"""Backbone → lr → freezing → [accuracy, baseline]."""
INITS = {"pretrained": "Accuracy", "scratch": "Baseline"}
"""What its tables call the starts."""


def published() -> dict[int, Published]:
    """Table number → backbone → lr → freezing → [accuracy, baseline], as printed."""
    return yaml.safe_load(Path(__file__).with_name("published.yaml").read_text())["tables"]


def settings(printed: Published) -> dict[tuple[str, float, str], tuple[float, float]]:
    """A printed table's (accuracy, baseline) by (backbone, lr, freezing)."""
    return {
        (backbone, lr, freezing): (pair[0], pair[1])
        for backbone, rates in printed.items()
        for lr, row in rates.items()
        for freezing, pair in row.items()
    }
