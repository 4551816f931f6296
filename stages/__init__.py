"""One thin script per stage of dvc.yaml, named after it: `python -m stages.split ants_bees`."""

import gc
import sys

if sys.argv[0] == "-m":  # `python -m stages.…`: until cli.run, it would look for garbage in imports
    gc.disable()
