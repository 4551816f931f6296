"""Train the drawn study's backbones on its source set: its stand-in for ImageNet weights."""

import argparse

from transfer import cli, params
from transfer.training.checkpoint import alone
from transfer.training.pretrain import pretrain


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.pretrain", description=__doc__)
    parser.add_argument("backbone", help="a key under pretrain in params.yaml")
    backbone = parser.parse_args().backbone
    settings = params.entry("pretrain", params.load().pretrain, backbone)
    with alone(f"data/checkpoints/.pretrain-{backbone}.lock", f"pretrain {backbone}"):
        pretrain(backbone, settings)


if __name__ == "__main__":
    cli.run(main)
