"""The paper's printed accuracies, its Tables 1 to 4, from published.yaml."""

from pathlib import Path

import yaml

Published = dict[tuple[str, float, str], tuple[float, float]]
"""A printed table: (backbone, lr, freezing) → (accuracy, baseline)."""
COLUMNS = {"pretrained": "Accuracy", "scratch": "Baseline"}
"""Init → the tables' column."""


def published() -> dict[int, Published]:
    """The printed tables by number."""
    text = Path(__file__).with_name("published.yaml").read_text()
    return {
        table: {
            (backbone, lr, freezing): (accuracy, baseline)
            for backbone, rates in printed.items()
            for lr, row in rates.items()
            for freezing, (accuracy, baseline) in row.items()
        }
        for table, printed in yaml.safe_load(text)["tables"].items()
    }
