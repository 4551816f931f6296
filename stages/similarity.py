"""Measure the similarity of a data set to what a backbone was pretrained on."""

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from transfer import cli, params
from transfer.evidence import similarity
from transfer.evidence.measures import Similarity
from transfer.images import packed
from transfer.training import augment, engine, models

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.similarity", description=__doc__)
    parser.add_argument("dataset", help="a key under datasets in params.yaml")
    parser.add_argument("backbone", help="a backbone that has weights in params.yaml")
    args = parser.parse_args()
    settings = params.load().pack
    data = packed.load(f"data/packed/{args.dataset}")
    model = models.source(args.backbone, f"data/weights/{args.backbone}-pretrained.pth")
    name, images = f"{args.dataset}, {args.backbone}", batches(data, settings)
    shown = tqdm(images, name, -(-len(data.train) // BATCH), unit=" batches", disable=None)
    observed = similarity.collect(model, shown, engine.pick_device("auto"))
    print(f"{name}: {len(data.train)} images seen; measuring", flush=True)
    prototypes = models.head(model).weight.detach().cpu().numpy()
    found = similarity.measure(observed, data.train.label, prototypes)
    Similarity(
        dataset=args.dataset,
        backbone=args.backbone,
        n=len(data.train),
        source_classes=len(prototypes),
        measures={key: round(value, 6) for key, value in found.items()},
    ).write(Similarity.path(args.dataset, args.backbone))


def batches(data: packed.Packed, settings: params.Pack) -> Iterator[torch.Tensor]:
    """The training images, prepared as test images are, and normalised."""
    sizes = settings.resize, settings.size
    for start in range(0, len(data.train), BATCH):
        images = [
            packed.prepare(Image.fromarray(data.image(data.train, i).numpy()), *sizes)
            for i in range(start, min(start + BATCH, len(data.train)))
        ]
        yield augment.normalize(torch.from_numpy(np.stack(images)))


if __name__ == "__main__":
    cli.run(main)
