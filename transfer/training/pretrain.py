"""A backbone trained on a source set of the study, to stand in for ImageNet weights."""

from dataclasses import asdict
from pathlib import Path

import torch

from transfer import arithmetic
from transfer.images import packed
from transfer.params import Pretrain
from transfer.training import models
from transfer.training.checkpoint import Checkpoint, write
from transfer.training.engine import Protocol, finetune
from transfer.training.progress import watched
from transfer.training.run_cache import fingerprint


def pretrain(backbone: str, settings: Pretrain, numbers: str) -> None:
    """Write data/weights/<backbone>-pretrained.pth, and the empty checkpoint of a baseline beside
    it; goes on from a checkpoint if there is one. numbers: train.arithmetic. Raises UserError as
    models.build does."""
    folder = Path(f"data/packed/{settings.source}")
    data, scratch = packed.load(folder, settings.seed), Path(f"data/weights/{backbone}-scratch.pth")
    models.save_scratch(scratch)
    protocol = Protocol(**{name: value for name, value in settings if name != "source"})
    numbers = arithmetic.apply(numbers)
    depends = {"protocol": asdict(protocol), "backbone": backbone, "arithmetic": numbers}
    key = fingerprint("stages.pretrain", [folder / "index.json", scratch], **depends)
    checkpoint = Checkpoint(f"data/checkpoints/pretrain-{backbone}.pt", key, every=10)
    model = protocol.build(backbone, len(data.classes), scratch)
    results = finetune(model, data, protocol, torch.device("cpu"), checkpoint)
    images = len(data.train) + len(data.test)
    last = watched(f"pretrain {backbone}", protocol.epochs, images, results)[-1].epoch
    write(f"data/weights/{backbone}-pretrained.pth", model.state_dict())
    checkpoint.remove()
    print(
        f"pretrain {backbone}: accuracy {last.test_accuracy:.3f} "
        f"on {len(data.classes)} source classes"
    )
