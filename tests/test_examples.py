"""The images that a page shows are those it names."""

import numpy as np
from PIL import Image
from torchvision import transforms

from transfer.pages import figures, pictures
from transfer.training import predictions


def prepared(split, name: str) -> np.ndarray:
    """<part>/<class>/<file> of the split."""
    part, label, file = name.split("/")
    path = split / part / str("ab".index(label)) / file
    steps = transforms.Compose([transforms.Resize(72), transforms.CenterCrop(64)])
    return np.asarray(steps(Image.open(path).convert("RGB")))


def predicted(data, classes, epoch=1) -> tuple[predictions.Predictions, int]:
    """Of two epochs; the other one is wrong everywhere."""
    right = np.asarray(classes)
    probabilities = np.full((2, len(right), 2), 0.25)
    probabilities[epoch, np.arange(len(right)), right] = 0.75
    probabilities[1 - epoch, np.arange(len(right)), 1 - data.test.label] = 0.75
    return predictions.from_probabilities(data.test.names, data.test.label, probabilities), epoch


def test_disagreements_show_the_images_and_what_was_said_of_them(split, data):
    label = data.test.label
    other = label.copy()
    other[[2, 5, 9]] = 1 - other[[2, 5, 9]]
    runs = {"transfer": predicted(data, label), "baseline": predicted(data, other, epoch=0)}
    found, among = pictures.disagreements(data, runs, limit=2)
    every, _ = pictures.disagreements(data, runs)
    assert among == len(every) == 3
    assert [e.name for e in found] == [e.name for e in every[:2]]
    truths = [e.lines[0][0].removeprefix("truth: ") for e in every]
    named = {f"{truth}/{e.name}" for truth, e in zip(truths, every, strict=True)}
    assert named == {data.test.names[i] for i in (2, 5, 9)}
    for truth, example in zip(truths, every, strict=True):
        shown = prepared(split, f"test/{truth}/{example.name}")
        np.testing.assert_array_equal(example.image, shown)
        other = {"a": "b", "b": "a"}[truth]
        assert example.lines[1:] == [
            (f"✓ transfer: {truth} 75 %", figures.INK),
            (f"✗ baseline: {other} 75 %", figures.VERMILION),
        ]


def test_runs_that_agree_leave_nothing_to_show(data):
    same = predicted(data, data.test.label)
    assert pictures.disagreements(data, {"transfer": same, "baseline": same}) == ([], 0)


def test_twins_are_the_named_images_prepared_alike(split, data):
    leaked = [("a/000.jpg", "train/b/003.jpg"), ("b/001.jpg", "validation/a/002.jpg")]
    found = pictures.duplicates(data, leaked)
    pairs = zip(found[1::2], found[::2], strict=True)
    assert {(test.name, duplicate.name) for test, duplicate in pairs} == {
        (f"test/{test}", duplicate) for test, duplicate in leaked
    }
    for shown in found:
        np.testing.assert_array_equal(shown.image, prepared(split, shown.name))
    assert len(pictures.duplicates(data, leaked, limit=1)) == 2
