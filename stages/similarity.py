"""Measure the similarity of a data set to what a backbone was pretrained on."""

import argparse

from tqdm import tqdm

from transfer import cli, params
from transfer.evidence import similarity
from transfer.evidence.measures import Similarity
from transfer.images import packed
from transfer.training import engine, models


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.similarity", description=__doc__)
    parser.add_argument("dataset", help="a key under datasets in params.yaml")
    parser.add_argument("backbone", help="a backbone that has weights in params.yaml")
    args = parser.parse_args()
    data = packed.load(f"data/packed/{args.dataset}")
    model = models.source(args.backbone, f"data/weights/{args.backbone}-pretrained.pth")
    name, count = f"{args.dataset}, {args.backbone}", -(-len(data.train) // similarity.BATCH)
    images = similarity.batches(data, params.load().pack)
    shown = tqdm(images, name, count, unit=" batches", disable=None)
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


if __name__ == "__main__":
    cli.run(main)
