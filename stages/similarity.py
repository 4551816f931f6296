"""Measure the similarity of a data set to what a backbone was pretrained on."""

from tqdm import tqdm

from transfer import arithmetic, cli, params
from transfer.evidence import similarity
from transfer.evidence.measures import Similarity
from transfer.images import packed
from transfer.training import engine, models


def main() -> None:
    words = {"dataset": "a key under datasets", "backbone": "one that has weights"}
    dataset, backbone = cli.arguments("similarity", __doc__, **words)
    study = params.load()
    device = engine.pick_device(study.train.device)
    arithmetic.apply(study.train.arithmetic, study.train.precision, device.type)
    data = packed.load(f"data/packed/{dataset}")
    model, prototypes = models.source(backbone, f"data/weights/{backbone}-pretrained.pth")
    name, count = f"{dataset}, {backbone}", -(-len(data.train) // similarity.BATCH)
    images = similarity.batches(data)
    progress = tqdm(images, name, count, unit=" batches", disable=None)
    observed = similarity.collect(model, progress, device)
    print(f"{name}: {len(data.train)} images seen; measuring", flush=True)
    # A head with one output does not distinguish source classes.
    classes = 0 if prototypes is None or len(prototypes) < 2 else len(prototypes)
    try:
        measures = similarity.measure(observed, data.train.label, classes > 0)
    except ValueError as error:
        advice = f"check the weights of {backbone} in params.yaml"
        raise cli.UserError(f"similarity of {name}: {error}; {advice}") from None
    Similarity(
        dataset=dataset,
        backbone=backbone,
        n=len(data.train),
        source_classes=classes,
        measures={key: round(value, 6) for key, value in measures.items()},
    ).write(Similarity.path(dataset, backbone))


if __name__ == "__main__":
    cli.run(main)
