"""Sort a data set's images into data/split/<dataset>/<part>/<class>, and audit them. The parts are
train, test and, if split.validation is not 0, validation."""

import argparse
from pathlib import Path

from tqdm import tqdm

from transfer import cli, files, params
from transfer.images import archive, audit


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.split", description=__doc__)
    parser.add_argument("dataset", help="a key of datasets in params.yaml")
    name = parser.parse_args().dataset
    study = params.load()
    report = split(name, params.entry("datasets", study.datasets, name), study.split)
    print("\n".join(summary(report)))


def split(name: str, dataset: params.Dataset, rules: params.Split) -> audit.Audit:
    """Write the folders and metrics/data/<dataset>.json; return what that file holds."""
    folders = dataset.folders.model_dump(exclude_none=True)
    count = dataset.count.model_dump()
    with archive.opened(dataset.source) as source:
        members, beside = audit.choose(source, folders)
        progress = tqdm(members, desc=name, unit=" images", delay=2, disable=None)
        found, left_out = audit.scan(source, progress, rules.unreadable)
        kept = audit.drop_duplicates(found) if rules.duplicates == "drop" else found
        chosen = audit.select(kept, folders, count, name, rules.seed)
        chosen = audit.hold_out(chosen, rules.validation, name, rules.seed)
        write(source, chosen, Path("data/split", name))
    report = audit.Audit(
        dataset=name,
        source=dataset.source,
        rules=rules.model_dump() | {"count": count},
        left_out={why: audit.Listed.of(paths) for why, paths in (beside | left_out).items()},
        archive=audit.describe(found),
        dropped=audit.tally(found, set(found) - set(kept)),
        split=audit.describe(chosen),
        leaked=audit.leaked(chosen),
    )
    report.write(f"metrics/data/{name}.json")
    return report


def write(source: archive.Source, pictures: list[audit.Picture], folder: Path) -> None:
    """Copy each picture's bytes, unchanged, to folder/<part>/<class>/<name>."""
    with files.replacing(folder) as fresh:
        for picture in pictures:
            path = fresh / picture.part / picture.label / picture.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read(picture.path))


def summary(report: audit.Audit) -> list[str]:
    chosen = report.split
    parts = [
        f"{part}: " + ", ".join(f"{count} {label}" for label, count in chosen.images[part].items())
        for part in ("train", "validation", "test")
        if part in chosen.images
    ]
    out = [f"{left.count} {why}" for why, left in report.left_out.items() if left.count]
    lines = [f"{report.dataset}: {'; '.join(parts)}; left out: {', '.join(out) or 'none'}"]
    for label, leaked in chosen.duplicates.across.items():
        if leaked:
            lines.append(
                f"{report.dataset}: {leaked} of {chosen.images['test'][label]} test images "
                f"of {label} are in training too; split.duplicates: drop would take those out"
            )
    return lines


if __name__ == "__main__":
    cli.run(main)
