"""Train a backbone on a source set of the study, to stand in for ImageNet weights."""

from transfer import cli, files, params
from transfer.training.pretrain import pretrain


def main() -> None:
    (backbone,) = cli.arguments("pretrain", __doc__, backbone="a key under pretrain in params.yaml")
    study = params.load()
    settings = params.entry("pretrain", study.pretrain, backbone)
    with files.locked(f"data/checkpoints/.pretrain-{backbone}.lock", f"pretrain {backbone}"):
        pretrain(backbone, settings, study.train.arithmetic)


if __name__ == "__main__":
    cli.run(main)
