"""On what the runs of a study were trained, and with which packages."""

from collections import Counter
from collections.abc import Iterable

from transfer.files import Fields
from transfer.training.record import Record, computed_on


class Alike(Fields):
    """So many runs that were trained alike. `how`: by what they differ from the others, such as
    `with torch 2.15.0`."""

    runs: int
    how: str

    def __str__(self) -> str:
        return f"{self.runs} {self.how}"


def mixed(records: Iterable[Record]) -> list[Alike]:
    """The runs by device and package versions, the most frequent first; [] if all runs agree.

    A package that only some runs use, as timm, is compared among those. What a GPU computes in is
    left out, since recipes choose it.
    """
    ways = [
        {"device": _device(run) if run.device == "cpu" else run.device, **run.versions}
        for run in records
    ]
    names = sorted({name for way in ways for name in way})
    differ = [name for name in names if len({way.get(name) for way in ways} - {None}) > 1]
    counts = Counter(tuple((name, way[name]) for name in differ if name in way) for way in ways)
    return [Alike(runs=n, how=_words(dict(way))) for way, n in counts.most_common() if way]


def sentence(found: list[Alike]) -> str:
    """What a page says of a mixture; '' of none."""
    if not found:
        return ""
    return (
        f"Not all runs were trained alike: {'; '.join(map(str, found))}. Differences between "
        "settings may come from that, too. To train all runs again, use dvc repro -f."
    )


def summary(records: Iterable[Record]) -> dict[str, str]:
    """Every `device` and all `packages` that occur."""
    runs = list(records)
    packages = {", ".join(" ".join(pair) for pair in sorted(run.versions.items())) for run in runs}
    devices = {_device(run) for run in runs}
    return {"device": "; ".join(sorted(devices)), "packages": "; ".join(sorted(packages))}


def _device(run: Record) -> str:
    return computed_on(run.device, run.arithmetic, run.threads)


def _words(way: dict[str, str]) -> str:
    words = [f"on {way.pop('device')}"] if "device" in way else []
    packages = ", ".join(" ".join(pair) for pair in way.items())
    return " ".join([*words, f"with {packages}"] if packages else words)
