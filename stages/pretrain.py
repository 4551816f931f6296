"""Train the drawn study's backbones on its source set: its stand-in for ImageNet weights."""

from transfer import cli, params
from transfer.training.checkpoint import alone
from transfer.training.pretrain import pretrain


def main() -> None:
    (backbone,) = cli.arguments("pretrain", __doc__, backbone="a key under pretrain in params.yaml")
    settings = params.entry("pretrain", params.load().pretrain, backbone)
    with alone(f"data/checkpoints/.pretrain-{backbone}.lock", f"pretrain {backbone}"):
        pretrain(backbone, settings)


if __name__ == "__main__":
    cli.run(main)
