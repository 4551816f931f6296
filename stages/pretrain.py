"""Train the drawn study's backbones on its source set: its stand-in for ImageNet weights."""

import argparse
from dataclasses import asdict
from pathlib import Path

import torch

from transfer import cli, files, params
from transfer.images import packed
from transfer.training import engine, models
from transfer.training.checkpoint import Checkpoint, alone, fingerprint
from transfer.training.progress import watched


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.pretrain", description=__doc__)
    parser.add_argument("backbone", help="a key under pretrain in params.yaml")
    backbone = parser.parse_args().backbone
    with alone(f"data/checkpoints/.pretrain-{backbone}.lock", f"pretrain {backbone}"):
        pretrain(backbone)


def pretrain(backbone: str) -> None:
    settings = params.entry("pretrain", params.load().pretrain, backbone)
    data = packed.load(f"data/packed/{settings.source}")
    scratch = f"data/weights/{backbone}-scratch.pth"
    models.save_empty(scratch)
    model = models.build(backbone, len(data.classes), scratch, settings.seed)
    given = {name: value for name, value in settings if name != "source"}
    protocol = engine.Protocol(**given)
    bound = [Path(f"data/packed/{settings.source}/index.json"), Path(scratch)]
    key = fingerprint("stages.pretrain", bound, protocol=asdict(protocol), backbone=backbone)
    checkpoint = Checkpoint(f"data/checkpoints/pretrain-{backbone}.pt", key, every=10)
    outcomes = engine.finetune(model, data, protocol, torch.device("cpu"), checkpoint)
    images = len(data.train) + len(data.test)
    last = watched(f"pretrain {backbone}", protocol.epochs, images, outcomes)[-1].epoch
    with files.replacing(f"data/weights/{backbone}-pretrained.pth") as part:
        torch.save(model.state_dict(), part)
    checkpoint.remove()
    print(
        f"pretrain {backbone}: accuracy {last.test_accuracy:.3f} "
        f"on {len(data.classes)} source classes"
    )


if __name__ == "__main__":
    cli.run(main)
