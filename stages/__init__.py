"""One thin script per stage of dvc.yaml, named after it: `python -m stages.split ants_bees`."""

from transfer import arithmetic

arithmetic.settle()
