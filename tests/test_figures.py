"""What the figures show and where; the plot templates in the real dvc."""

import json
import subprocess
import sys
from itertools import combinations, product

import numpy as np
import pytest
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from tests.conftest import ROOT
from transfer.evidence.found import Accuracy, Arm, Place, Row
from transfer.evidence.stats import Difference
from transfer.pages import figures
from transfer.pages.examples import Disagreement, Twin
from transfer.runs import DEFAULT

N_TRAIN = dict.fromkeys("abcd", 244)
TITLES = {"a": "ant and bee", "b": "many words " * 4, "c": "Ωμέγα $ и ß_$", "d": "drum"}
PRINTED = {"a": {("resnet18", 0.001, "frozen"): (0.947712, 0.6732)}}
LONG = "Haliaeetus_leucocephalus_$_Überflieger_" * 3
STARTS = ["pretrained", "scratch"]
SETTINGS = list(product(["resnet18", "resnet50"], [0.001, 0.0001], ["frozen", "finetuned"]))
RUNS = {(*map(str, setting), start) for setting, start in product(SETTINGS, STARTS)}


def grid(datasets="abcd", starts=STARTS):
    rows = []
    for n, (dataset, setting) in enumerate(product(datasets, SETTINGS)):
        means = zip(starts, (0.95 - n / 100, 0.75 - n / 100), strict=False)
        arms = {start: arm(mean) for start, mean in means}
        place = Place.of(dataset, "all", (*setting, DEFAULT)).model_dump()
        rows.append(Row(**place, n_test=153, arms=arms, paired=None, unleaked=None))
    return rows


def arm(mean: float) -> Arm:
    chosen = Accuracy(mean=mean, sd=None, low=mean - 0.04, high=mean + 0.03)
    return Arm(best=mean, chosen=chosen, inflation=0, n_validation=0, validation=None)


def measured(measures=("Distance (m)", "Entropy (nats)")):
    points = []  # that crowd each other
    for (i, name), (j, backbone) in product(enumerate("abcd"), enumerate(["r18", "r50"])):
        gain = Difference(i / 20 + j / 40, i / 20 - 0.05, i / 20 + 0.1)
        found = {measure: i / 9 + j / 50 for measure in measures}
        points.append(figures.Point(name, backbone, gain, found))
    return points


def example(truth="bee", transfer="bee", baseline="ant"):
    image = np.zeros((32, 48, 3), np.uint8)
    return Disagreement(image, LONG, truth, (transfer, 0.97), (baseline, 0.614))


def pair(height=40):
    image = np.full((height, 30, 3), 90, np.uint8)
    return Twin(image, image, "ants/1.jpg", LONG)


FIGURES = {
    "gains": lambda: figures.gains(grid(), N_TRAIN, TITLES, PRINTED),
    "three without baseline": lambda: figures.gains(grid("abc", STARTS[:1]), N_TRAIN, TITLES, {}),
    "one": lambda: figures.gains(grid("b"), N_TRAIN, {"b": "many words " * 20}, {}),
    "similarity": lambda: figures.similarity(measured(), TITLES),
    "three measures": lambda: figures.similarity(measured(["x" * 99, "y", "z"]), TITLES),
    "disagreements": lambda: figures.disagreements([example("пчела", LONG, LONG)] * 8, LONG),
    "duplicates": lambda: figures.duplicates([pair(n) for n in (3, 30, 50, 300)], "In $ and $"),
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
        found = [row.arms[s].chosen for row in rows if row.dataset == name for s in STARTS]
        assert [x for x, _ in marks(panel, "o")] == [point.mean for point in found]
        assert [round(y) for _, y in marks(panel, "o")] == [n // 2 for n in range(16)]
        ends = {tuple(line.get_xdata()) for line in panel.lines if line.get_marker() == "None"}
        assert {(point.low, point.high) for point in found} <= ends
    assert marks(panels[0], "D") == [(0.947712, -0.15), (0.6732, 0.15)]
    assert not any(marks(panel, "D") for panel in panels[1:])
    assert panels[0].get_yticklabels()[-1].get_text() == "R50 0.0001 finetuned"
    alone = figures.gains(grid("abc", STARTS[:1]), N_TRAIN, TITLES, {})
    assert [y for _, y in marks(alone.axes[2], "o")] == list(range(8))
    assert [text.get_text() for text in alone.legends[0].get_texts()] == ["transfer"]


def test_each_point_has_a_label_clear_of_all_points():
    points = measured()
    del points[3].measures["Entropy (nats)"]
    figure = figures.similarity(points, TITLES)
    figure.draw_without_rendering()
    for panel in figure.axes:
        measure = panel.get_xlabel()
        spots = [(p.measures[measure], p.gain.value) for p in points if measure in p.measures]
        labels = panel.findobj(Annotation)
        assert [label.xy for label in labels] == spots
        assert sorted(marks(panel, "o") + marks(panel, "s")) == sorted(spots)
        boxes = [Bbox([at - 5, at + 5]) for at in panel.transData.transform(spots)]
        assert not overlap(boxes + [Text.get_window_extent(label) for label in labels])
    assert figure.get_supxlabel().startswith("4 data sets")


def test_images_are_shown_and_predictions_marked_by_sign_and_colour():
    for count in (1, 5, 8):
        figure = figures.disagreements([example()] * count, "Ants")
        assert len(figure.axes) == count and len(figure.texts) == 1 + 4 * count
        assert len(figures.duplicates([pair()] * count, "Ants").axes) == 2 * count
    assert figures.disagreements([], "Ants") is None and figures.duplicates([], "Ants") is None
    texts = figures.disagreements([example(), example("ant")], "Ants").texts
    guesses = [(t.get_text(), t.get_color()) for t in texts if "%" in t.get_text()]
    right, wrong = figures.INK, figures.VERMILION
    assert guesses[:2] == [("✓ transfer: bee 97 %", right), ("✗ baseline: ant 61 %", wrong)]
    assert guesses[2:] == [("✗ transfer: bee 97 %", wrong), ("✓ baseline: ant 61 %", right)]


def test_templates_in_dvc(tmp_path):
    curves = ["backbone,lr,freezing,start,epoch,test_accuracy"]
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
    assert {(p["backbone"], p["lr"], p["freezing"], p["start"]) for p in values[0]} == RUNS
    assert list(map(len, values)) == [400, 2]
