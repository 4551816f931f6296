"""What the figures show and where; the plot templates in the real dvc."""

import json
import subprocess
import sys
from itertools import combinations, product

import numpy as np
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from tests.conftest import ROOT
from transfer.evidence import calibration
from transfer.evidence.records import Choice, Estimate, Mistake, Recall, Result, Row
from transfer.evidence.stats import Difference
from transfer.pages import figures
from transfer.runs import DEFAULT, Setting
from transfer.training import predictions

N_TRAIN = dict.fromkeys("abcd", 244)
TITLES = {"a": "ant and bee", "b": "many words " * 4, "c": "Ωμέγα $ и ß_$", "d": "drum"}
PRINTED = {"a": {("resnet18", 0.001, "frozen"): (0.947712, 0.6732)}}
LONG = "Haliaeetus_leucocephalus_$_Überflieger_" * 3
INITS = ["pretrained", "scratch"]
SETTINGS = list(product(["resnet18", "resnet50"], [0.001, 0.0001], ["frozen", "finetuned"]))
RUNS = {(*map(str, setting), init) for setting, init in product(SETTINGS, INITS)}


def grid(datasets="abcd", inits=INITS):
    rows = []
    for n, (dataset, setting) in enumerate(product(datasets, SETTINGS)):
        means = zip(inits, (0.95 - n / 100, 0.75 - n / 100), strict=False)
        results = {init: result(mean) for init, mean in means}
        axes = zip(Setting.model_fields, (dataset, "all", *setting, DEFAULT), strict=True)
        rows.append(Row(**dict(axes), n_test=153, results=results, paired=None, unleaked=None))
    return rows


def result(mean: float) -> Result:
    chosen = Estimate(mean=mean, sd=None, low=mean - 0.04, high=mean + 0.03)
    return Result(
        best=mean, chosen=chosen, inflation=0, n_validation=0, validation=None, penalty=None
    )


def choice(classes: int) -> Choice:
    """With every fourth image of a class taken for the next."""
    names = [f"class {i}" for i in range(classes)]
    nothing = Difference(0.0, 0.0, 0.0, 1.0)
    return Choice(
        **dict(grid("a")[0].setting),
        **{"init": "pretrained", "n_test": 80, "n_validation": 0, "validation": None},
        **{
            "difference": nothing,
            "as_good": True,
            "again": None,
            "penalty": None,
            "majority": "class 0",
        },
        **{"share": 0.1, "above": nothing, "chosen": result(0.75).chosen},
        recall=[Recall(label=name, n=8, mean=0.75, low=0.5, high=0.9) for name in names],
        mistakes=[
            Mistake(label=a, predicted=b, n=2)
            for a, b in zip(names, names[1:] + names[:1], strict=True)
        ],
    )


def taken(names="abcd") -> dict[str, list[tuple[Choice, float]]]:
    """Settings of every measure and cost: the second costs least, the third is best, and the first
    is neither."""
    values = [(0.8, 1.0), (0.7, 0.25), (0.9, 0.5), (0.85, 2.0)]
    found = {}
    for name in names:
        rows = zip(grid(name), values, strict=False)
        found[TITLES[name]] = [
            (
                choice(2).model_copy(update={**dict(row.setting), "chosen": result(mean).chosen}),
                cost,
            )
            for row, (mean, cost) in rows
        ]
    return found


def sizes() -> list[Row]:
    more = [row.model_copy(update={"images": images}) for row in grid() for images in ("all", 50)]
    return sorted(more, key=lambda row: row.dataset)


def measured(measures=("Distance (m)", "Entropy (nats)")):
    points = []  # that crowd each other
    for (i, name), (j, backbone) in product(enumerate("abcd"), enumerate(["r18", "r50"])):
        gain = Difference(i / 20 + j / 40, i / 20 - 0.05, i / 20 + 0.1, 0.1)
        found = {measure: i / 9 + j / 50 for measure in measures}
        points.append(figures.Point(name, backbone, gain, found))
    return points


def example(words="✓ transfer: bee 97 %"):
    lines = [("truth: bee", figures.INK), (words, figures.VERMILION)]
    return figures.Example(LONG, np.zeros((32, 48, 3), np.uint8), lines)


def image(height=40):
    return figures.Example(LONG, np.full((height, 30, 3), 90, np.uint8))


def sure(n: int) -> dict[str, predictions.Predictions]:
    """A run on n images of each part, too sure of itself."""
    names, label = [f"{'ab'[i % 2]}/{i}" for i in range(n)], np.arange(n) % 2
    given = np.random.default_rng(0).random(n) ** 0.2 * 0.98
    part = predictions.from_probabilities(names, label, np.stack([1 - given, given], 1)[None])
    return {"validation": part, "test": part}


FIGURES = {
    "gains": lambda: figures.gains(grid(), N_TRAIN, TITLES, PRINTED),
    "three without baseline": lambda: figures.gains(grid("abc", INITS[:1]), N_TRAIN, TITLES, {}),
    "one": lambda: figures.gains(grid("b"), N_TRAIN, {"b": "many words " * 20}, {}),
    "confusion": lambda: figures.confusion(
        {title: choice(n) for title, n in zip(TITLES.values(), (2, 3, 8, 20), strict=True)}
    ),
    "calibration": lambda: figures.calibration(
        {
            LONG: calibration.calibrate([sure(90)], "accuracy"),
            "b": calibration.calibrate([sure(9)], "accuracy"),
        }
    ),
    "cost": lambda: figures.cost(taken()),
    "cost of one": lambda: figures.cost(taken("b")),
    "learning": lambda: figures.learning(sizes(), TITLES),
    "similarity": lambda: figures.similarity(measured()),
    "three measures": lambda: figures.similarity(measured(["x" * 99, "y", "z"])),
    "disagreements": lambda: figures.image_sheet({LONG: [example(LONG)] * 8}, 4),
    "galleries": lambda: figures.image_sheet(
        {"In $ and $": [image(n) for n in (3, 30, 50, 300)], "many words " * 20: [image()]}, 3
    ),
}


def overlap(boxes) -> bool:
    return any(Bbox.intersection(*pair) for pair in combinations(boxes, 2))


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.filterwarnings("error")  # a sign that the font lacks, a layout that does not fit
def test_all_is_inside_apart_large_enough_and_equal_bytes(name, tmp_path):
    figure = FIGURES[name]()
    figures.save(figure, tmp_path / "1.png")
    figures.save(FIGURES[name](), tmp_path / "2.png")
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
    box = figure.get_tightbbox()
    assert (box.min >= 0).all() and (box.max <= figure.get_size_inches()).all()
    assert not overlap(a.get_tightbbox() for a in figure.axes + figure.texts + figure.legends)
    assert min(text.get_fontsize() for text in figure.findobj(Text)) >= 8


def marks(panel, marker) -> list[tuple[float, float]]:
    return [tuple(line.get_xydata()[0]) for line in panel.lines if line.get_marker() == marker]


def test_gains_stand_where_told():
    panels = figures.gains(rows := grid(), N_TRAIN, TITLES, PRINTED).axes
    for panel, name in zip(panels, "abcd", strict=True):
        found = [row.results[s].chosen for row in rows if row.dataset == name for s in INITS]
        assert [x for x, _ in marks(panel, "o")] == [point.mean for point in found]
        assert [round(y) for _, y in marks(panel, "o")] == [n // 2 for n in range(16)]
        ends = {tuple(line.get_xdata()) for line in panel.lines if line.get_marker() == "None"}
        assert {(point.low, point.high) for point in found} <= ends
    assert marks(panels[0], "D") == [(0.947712, -0.15), (0.6732, 0.15)]
    assert not any(marks(panel, "D") for panel in panels[1:])
    assert panels[0].get_yticklabels()[-1].get_text() == "R50 0.0001 finetuned"
    alone = figures.gains(grid("abc", INITS[:1]), N_TRAIN, TITLES, {})
    assert [y for _, y in marks(alone.axes[2], "o")] == list(range(8))
    assert [text.get_text() for text in alone.legends[0].get_texts()] == ["transfer"]


def test_the_settings_that_no_cheaper_one_equals_are_joined_and_named():
    (panel,) = figures.cost(found := taken("a")).axes
    (own,) = found.values()
    line = next(line for line in panel.lines if line.get_drawstyle() == "steps-post")
    assert line.get_xydata().tolist() == [[0.25, 0.7], [0.5, 0.9]]
    assert [text.get_text() for text in panel.texts] == [own[1][0].label, own[2][0].label]
    assert sorted(y for _, y in marks(panel, "o")) == sorted(c.chosen.mean for c, _ in own)
    wrong = [(c.model_copy(update={"chosen": result(0.0).chosen}), cost) for c, cost in own]
    assert len(figures.cost({"all wrong": wrong}).axes[0].texts) == 1


def test_each_point_stands_at_its_similarity_in_its_data_sets_colour():
    points = measured()
    del points[3].measures["Entropy (nats)"]
    figure = figures.similarity(points)
    signs = dict(zip("abcd", figures.COLOURS, strict=False))
    for panel in figure.axes:
        measure = panel.get_xlabel()
        there = [p for p in points if measure in p.measures]
        found = [line for line in panel.lines if line.get_marker() in "os"]
        spots = [(p.measures[measure], p.gain.value) for p in there]
        assert [tuple(line.get_xydata()[0]) for line in found] == spots
        assert [line.get_color() for line in found] == [signs[p.dataset] for p in there]
    (legend,) = figure.legends
    colours = [line.get_color() for line in legend.get_lines()]
    predicted = dict(zip([text.get_text() for text in legend.get_texts()], colours, strict=True))
    assert predicted == {**signs, "r18": figures.QUIET, "r50": figures.QUIET}
    assert figure.get_supxlabel().startswith("4 data sets")


def test_images_are_shown_under_names_and_over_lines_in_their_colours():
    for count in (1, 5, 8):
        figure = figures.image_sheet({"Ants": [example()] * count, "Bees": [image()]}, 4)
        assert len(figure.axes) == count + 1
        found = [(text.get_text(), text.get_color()) for text in figure.texts]
        assert found[0] == ("Ants", figures.INK) and found[-2] == ("Bees", figures.INK)
        predicted = [("truth: bee", figures.INK), ("✓ transfer: bee 97 %", figures.VERMILION)]
        assert len(found) == 1 + 3 * count + 2 and found[2:4] == predicted
    assert figures.image_sheet({"Ants": []}, 4) is None and figures.image_sheet({}, 4) is None


def test_templates_in_dvc(tmp_path):
    curves = ["backbone,lr,freezing,init,epoch,test_accuracy"]
    curves += [",".join([*run, str(epoch), "0.5"]) for run, epoch in product(RUNS, range(25))]
    (tmp_path / "1.csv").write_text("\n".join(curves))
    (tmp_path / "2.csv").write_text("actual,predicted\nant,ant\nbee,ant\n")
    one = f"1.csv: {{template: {ROOT}/.dvc/plots/curves.json, x: epoch, y: test_accuracy}}"
    two = f"2.csv: {{template: {ROOT}/.dvc/plots/confusion_counts.json, x: predicted, y: actual}}"
    (tmp_path / "dvc.yaml").write_text(f"plots: [{one}, {two}]")
    for command in ("init --no-scm -q", "plots show --json"):
        dvc = [sys.executable, "-m", "dvc", *command.split()]
        done = subprocess.run(dvc, cwd=tmp_path, capture_output=True, text=True, check=True)
    shown = json.loads(done.stdout)
    assert "errors" not in shown and "<DVC" not in done.stdout
    first, second = (shown["data"][f"{n}.csv"][0]["content"] for n in (1, 2))
    channels = {channel["field"] for channel in first["encoding"].values()}
    assert channels == {*curves[0].split(","), "rev"}  # every run and revision has its own line
    values = first["data"]["values"], second["data"]["values"]
    assert {(p["backbone"], p["lr"], p["freezing"], p["init"]) for p in values[0]} == RUNS
    assert list(map(len, values)) == [400, 2]
