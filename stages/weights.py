"""Write a backbone's two starting checkpoints to data/weights: the pretrained weights, checked by
hash, and one without weights, from which baselines start.

So new pretrained weights make only the transfer runs stale.
"""

from pathlib import Path

from transfer import cli, params
from transfer.training import models, weights


def main() -> None:
    (backbone,) = cli.arguments("weights", __doc__, backbone="a key under weights in params.yaml")
    source = params.entry("weights", params.load().weights, backbone)
    state = weights.put(backbone, source, Path(f"data/weights/{backbone}-pretrained.pth"))
    models.save_scratch(f"data/weights/{backbone}-scratch.pth", state)
    print(f"{backbone}: {source.source}, sha256 {source.sha256}")


if __name__ == "__main__":
    cli.run(main)
