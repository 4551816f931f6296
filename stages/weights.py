"""Write a backbone's two starting checkpoints to data/weights: the ImageNet weights, checked by
hash, and an empty one.

Baselines start from the empty one, so that new weights rerun the transfer runs alone.
"""

from pathlib import Path

from transfer import cli, params
from transfer.training import models, weights


def main() -> None:
    (backbone,) = cli.arguments("weights", __doc__, backbone="a key under weights in params.yaml")
    source = params.entry("weights", params.load().weights, backbone)
    weights.put(backbone, source, Path(f"data/weights/{backbone}-pretrained.pth"))
    models.save_empty(f"data/weights/{backbone}-scratch.pth")
    print(f"{backbone}: {source.source}, sha256 {source.sha256}")


if __name__ == "__main__":
    cli.run(main)
