"""The images that a page shows are those it names."""

import numpy as np
from PIL import Image
from torchvision import transforms

from transfer import params
from transfer.pages import examples
from transfer.training import predictions

PACK = params.Pack(resize=72, size=64, short_side=0)


def prepared(path) -> np.ndarray:
    steps = transforms.Compose([transforms.Resize(72), transforms.CenterCrop(64)])
    return np.asarray(steps(Image.open(path).convert("RGB")))


def predicted(data, classes, epoch=1) -> tuple[predictions.Predictions, int]:
    """Of two epochs; the other one is wrong everywhere."""
    right = np.asarray(classes)
    probabilities = np.full((2, len(right), 2), 0.25)
    probabilities[epoch, np.arange(len(right)), right] = 0.75
    probabilities[1 - epoch, np.arange(len(right)), 1 - data.test.label] = 0.75
    return predictions.of(data.test.names, data.test.label, probabilities), epoch


def test_disagreements_show_the_images_and_what_was_said_of_them(split, data):
    label = data.test.label
    other = label.copy()
    other[[2, 5, 9]] = 1 - other[[2, 5, 9]]
    runs = {"transfer": predicted(data, label), "baseline": predicted(data, other, epoch=0)}
    found, among = examples.disagreements(data, runs, limit=2)
    every, _ = examples.disagreements(data, runs)
    assert among == len(every) == 3
    assert [e.name for e in found] == [e.name for e in every[:2]]
    named = {f"{e.truth}/{e.name}" for e in every}
    assert named == {data.test.names[i] for i in (2, 5, 9)}
    for example in every:
        truth = example.truth
        path = split / "test" / truth / example.name
        np.testing.assert_array_equal(example.image, prepared(path))
        assert example.transfer == (truth, 0.75)
        assert example.baseline == ({"a": "b", "b": "a"}[truth], 0.75)


def test_runs_that_agree_leave_nothing_to_show(data):
    same = predicted(data, data.test.label)
    assert examples.disagreements(data, {"transfer": same, "baseline": same}) == ([], 0)


def test_twins_are_the_named_images_prepared_alike(split, data):
    leaked = [("a/000.jpg", "train/b/003.jpg"), ("b/001.jpg", "validation/a/002.jpg")]
    found = examples.twins(data, leaked, PACK)
    assert {(pair.test_name, pair.train_name) for pair in found} == {
        (f"test/{test}", twin) for test, twin in leaked
    }
    for pair in found:
        for part in ("train", "test"):
            path = split / getattr(pair, f"{part}_name")
            np.testing.assert_array_equal(getattr(pair, part), prepared(path))
    assert len(examples.twins(data, leaked, PACK, limit=1)) == 1
