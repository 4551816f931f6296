"""What a run costs before it starts: the `train` stage's imports and model, against a tutorial's.

`PYTHONPATH=. python benchmarks/startup.py`
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import ROOT, alternate, show
from transfer.training import models

THEIRS = """
import torch, torchvision
model = torchvision.models.resnet18()
torch.optim.Adam(model.parameters(), lr=1e-3).zero_grad()
"""
OURS = """
import sys
from stages import train
from transfer.training import models, step
step.Adam(models.build("resnet18", 2, sys.argv[1], 0).parameters(), lr=1e-3)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "scratch.pth")
        models.save_empty(checkpoint)

        def seconds(code: str) -> float:
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code, str(checkpoint)], cwd=ROOT, check=True)
            return time.perf_counter() - started

        contestants = {"tutorial": lambda _: seconds(THEIRS), "ours": lambda _: seconds(OURS)}
        show("start-up", alternate(contestants, rounds), "s")


if __name__ == "__main__":
    main()
