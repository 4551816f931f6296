"""What the pages say of runs made up for them."""

import re
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.test_evidence import DATA, NAMES, SETTINGS, made_up, run_of, unseen
from transfer.evidence import claims, compare, results
from transfer.evidence.measures import Similarity
from transfer.evidence.results import Scored
from transfer.evidence.stats import Difference
from transfer.pages import recommendation, report
from transfer.pages.recommendation import Advice
from transfer.runs import Run
from transfer.training.record import Best, Epoch, Record

RECORD = Record(
    **dict(dataset="glioma", images="all", backbone="resnet18", lr=0.001, freezing="frozen"),
    **dict(recipe="default", init="scratch", seed=0, best=Best(accuracy=1.0, epoch=0)),
    **dict(n={}, counts={}, data="0" * 64, device="cpu", arithmetic="AVX2"),
    **dict(threads=1, versions={"torch": "2"}),
)


def test_the_best_by_validation_is_recommended_and_what_is_as_good_and_cheaper():
    def validation(run: Run) -> float:
        place = run.backbone, run.lr, run.freezing, run.init
        return 0.9 if place == ("resnet50", 0.001, "finetuned", "pretrained") else 0.7

    found = made_up(0.9, 0.5, validation=validation, margin=0.12).choices
    own = [choice for choice in found if choice.dataset == "glioma"]
    assert len(found) == 64 and len(own) == 16
    first, *rest = own
    assert (first.label, first.init) == ("R50 0.001 finetuned", "pretrained")
    assert (first.difference.value, first.difference.sign, first.again) == (0, 0, 1)
    assert all(choice.difference.high < 0 for choice in rest if choice.init == "scratch")
    costs = [90 if c.backbone == "resnet50" else 30 + 1000 * (i % 2) for i, c in enumerate(own)]
    relative = [cost / 90 for cost in costs]
    advice = advise(own, relative, margin=0.12)
    good = advice.as_good
    assert good and {c.init for c, _ in good} == {"pretrained"}
    assert {cost for _, cost in good} == {1 / 3}
    text = recommendation.write([advice], [])
    assert "**Take R50 0.001 finetuned from pretrained weights**: right on 0.9" in text
    assert "of 200 test images, chosen among 16 settings on 100 validation images." in text
    assert (
        "has the best Brier score there; other validation images, for these runs, would choose"
        in text
    )
    assert "with a probability of about 100 %" in text
    assert "is as good to within 12 points on the test images" in text
    assert "takes 33 % of the computation" in text
    assert "Its learning rate is the highest of the grid: try 0.01 too." in text
    assert "11.2 million parameters, 44.7 MB" in text and "another seed may rank" in text
    unsure = [choice.model_copy(update={"as_good": False}) for choice in own]
    text = recommendation.write([replace(advice, choices=unsure)], [])
    assert "do not show whether it is as good to within 12 points" in text
    assert "Doubtful" not in text
    equal = recommendation.write([replace(advice, costs=[1.0] * 16)], [])
    assert "of the computation" not in equal
    assert "On the test images, no other setting did" in doubted(first, rest, 1.0, 400)
    lucky = first.model_copy(update={"chosen": first.chosen.model_copy(update={"high": 0.85})})
    assert doubted(lucky, [], 0.98, 49)
    assert not doubted(lucky, rest, 0.98, 49)  # the best of 16 may be as lucky
    gain = good[0][0].model_copy(update={"difference": Difference(0.1, 0.05, 0.15, 0.01)})
    words = doubted(first, [gain], 1.0, 400)
    assert "On the test images, 1 other setting did significantly better." in words


def advise(choices, costs=None, fit=(1.0,), margin=0.01, grid=SETTINGS.grid) -> Advice:
    """On the glioma images, with those accuracies on the training images."""
    return Advice(
        dataset=SETTINGS.datasets["glioma"],
        grid=grid,
        measure="accuracy",
        chosen_by="brier",
        choices=choices,
        costs=costs or [1.0] * len(choices),
        margin=margin,
        network=(11_177_538, 1_800_000_000),
        similar=[],
        curve=[Epoch(i, 0.001, 0.1, one, None, None, 0.1, 1.0) for i, one in enumerate(fit)],
    )


def doubted(first, rest, validation: float, n: int) -> str:
    """The page, if it calls the first doubtful with that validation accuracy."""
    first = first.model_copy(update={"validation": validation, "n_validation": n})
    advice = advise([first, *rest])
    text = recommendation.write([advice], [])
    assert ("Doubtful" in text) == advice.doubtful
    return text if advice.doubtful else ""


@pytest.mark.parametrize(
    "names,accuracy,bold",
    [
        (["a"] * 38 + ["b"] * 2, "always a", False),  # 190 : 10, nothing learnt
        (["a"] * 100 + ["b"] * 100, 0.5, False),  # chance
        ([f"c{i % 30:02}" for i in range(300)], 1 / 30, False),  # chance of 30 classes
        (["a"] * 38 + ["b"] * 2, 1.0, False),  # two images of b decide nothing
        (["a"] * 100 + ["b"] * 100, 0.9, True),
        ([f"c{i % 30:02}" for i in range(300)], 0.5, True),
    ],
)
def test_only_what_beats_one_answer_is_recommended(names, accuracy, bold):
    name = np.array([f"{label}/{i}.jpg" for i, label in enumerate(names)])
    constant = np.array(names) == "a"
    drawn = np.random.default_rng(0).random(len(names))

    def read(run: Run) -> Scored:
        right = constant if accuracy == "always a" else drawn < accuracy
        return run_of(name, right[None], 0, 0.9)

    grid = SETTINGS.grid.model_copy(update={"dataset": ["glioma"]})
    found = compare.compute(grid, SETTINGS.datasets, DATA, 0.01, read, unseen)
    advice = advise(found.choices, fit=(0.6, 0.6))
    text, datasets = recommendation.write([advice], []), {"glioma": SETTINGS.datasets["glioma"]}
    assert ("**Take" in text) == bold == ("None of these settings works yet" not in text)
    assert ("`python -m transfer keep glioma`" in text) == bold
    assert ("is not significantly better" in page(datasets, found)) != bold
    first = found.choices[0]
    assert f"Always answering “{first.majority}” is right on {first.share:.3f} of these" in text
    if accuracy == "always a":
        assert first.share == 0.95 and "b 0.000 [0.000, 0.658] of 2" in text


def test_the_pages_do_without_pytorch_and_statsmodels():
    names = ["evidence", "tables", "report", "recommend"]
    code = f"import sys, {', '.join(f'stages.{name}' for name in names)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "stages.recommend" in loaded and not {"torch", "statsmodels"} & loaded


def test_what_to_try_next_is_read_from_the_curve():
    choices = made_up(0.5, 0.5).choices
    for fit, words in {
        (0.5, 0.55, 0.6, 0.65): "More epochs may help: accuracy on the training images was still",
        (0.5, 0.9, 0.97, 0.97): "More images, stronger augmentation or a frozen backbone may help",
        (0.5, 0.5, 0.51, 0.51): "Another learning rate, larger images or another backbone may",
        (0.97,): "it fits its training images (0.970), but not others",
    }.items():
        assert words in advise(choices[:1], fit=fit).next


def page(datasets, evidence, similar=(), pictures=(), records=(RECORD,), drawn=False) -> str:
    lists = map(list, (records, pictures))
    return report.write(datasets, evidence, list(similar), {}, *lists, drawn)


DATASETS = {name: SETTINGS.datasets[name] for name in SETTINGS.grid.dataset}


def test_the_page_says_what_was_found():
    helps = page(DATASETS, made_up())
    gained = page(DATASETS, made_up(validation=lambda _: 0.9))
    assert len(re.findall(r"transfer setting and the best baseline differ by \+0\.3", gained)) >= 3
    assert "All runs have one seed." in helps
    assert (
        "states 200 test images, but its accuracies are multiples of 1/153, not of 1/200" in helps
    )
    assert "figures/" not in helps
    assert "![Accuracy of every setting](figures/gains.png)" in page(
        DATASETS, made_up(), pictures=["gains"]
    )
    own = {name: data.model_copy(update={"quadrant": "none"}) for name, data in DATASETS.items()}
    assert "## The paper's claims" in helps and "states 200 test images" in helps
    assert "claim" not in page(own, made_up())
    assert "(small, similar)" in helps and "on the test images themselves" in helps
    worse = {"transfer": 0.6, "baseline": 0.9, "validation": lambda _: 0.5}
    assert re.search(r"\| one seed +\|", page(DATASETS, made_up(**worse)))
    several = RECORD.model_copy(update={"seed": 1})
    judged = page(DATASETS, made_up(**worse, seed=[0, 1, 2]), records=[RECORD, several])
    assert "hurts: negative transfer" in judged and "on 100 validation images" in judged
    assert re.search(r"and the best baseline differ by -0\.3", judged)
    leaks = page(DATASETS, made_up(leaked=NAMES[::2]))
    assert "In glioma no test image of a is left." in leaks and "0 a, 100 b" in leaks


CPU, GPU = "cpu (AVX2, 1 thread)", "NVIDIA H200"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        # Which some networks alone use.
        ({"versions": {"torch": "2", "timm": "1"}}, []),
        ({"versions": {"torch": "3"}}, ["2 with torch 2", "1 with torch 3"]),
        ({"device": GPU, "arithmetic": "TF32"}, [f"2 on {CPU}", f"1 on {GPU}"]),
        ({"threads": 2}, [f"2 on {CPU}", "1 on cpu (AVX2, 2 threads)"]),
        ({"arithmetic": "AVX512"}, [f"2 on {CPU}", "1 on cpu (AVX512, 1 thread)"]),
        (
            {"device": GPU, "versions": {"torch": "3", "numpy": "4"}},
            [f"2 on {CPU} with torch 2", f"1 on {GPU} with torch 3"],
        ),
    ],
)
def test_the_pages_say_which_runs_were_trained_otherwise(changed, expected):
    other = RECORD.model_copy(update=changed)
    evidence = made_up(records=[RECORD, RECORD, other])
    assert [str(alike) for alike in evidence.mixed] == expected
    advice = advise(evidence.choices[:1])
    for write in (partial(page, DATASETS), lambda of: recommendation.write([advice], of.mixed)):
        text, agreed = write(evidence), write(made_up())
        words = f"**Not all runs were trained alike: {'; '.join(expected)}. Differences"
        assert (words in text) if expected else text == agreed
        assert "trained alike" not in agreed
    summary = compare.summary(evidence, SETTINGS.grid, [RECORD])["trained"]
    assert summary.get("mixed", "") == "; ".join(expected)


def test_what_a_recipe_computes_in_on_a_gpu_is_no_mixture():
    first = RECORD.model_copy(update={"device": GPU, "arithmetic": "TF32"})
    other = first.model_copy(update={"recipe": "half", "arithmetic": "bfloat16", "threads": 9})
    assert results.mixed([first, other]) == []


def test_sizes_and_seeds_stand_in_the_tables():
    text = page(DATASETS, made_up(images=["all", 50]))
    assert "50 a class" in text
    assert "**Ant and bee**: from 50 images a class to all images, accuracy changed by" in text
    assert "50 a class" not in page(DATASETS, made_up())
    assert " ± 0." in page(DATASETS, made_up(seed=[0, 1, 2]))


def test_claims_without_runs_are_told_apart():
    text = page(DATASETS, made_up(backbone=["resnet18"]))
    assert "are not judged here, because the grid lacks runs" in text
    assert "no such runs" not in text


def test_two_other_backbones_stand_in_for_the_papers():
    parameters = {"large": 20, "small": 10}
    stand_ins = claims.stand_ins(parameters)
    assert stand_ins == {"resnet18": "small", "resnet50": "large"}
    evidence = made_up(backbone=["large", "small"], stand_ins=stand_ins)
    alike = made_up(backbone=["small", "large"], stand_ins=stand_ins)
    assert evidence.claims.ours == alike.claims.ours
    text = page(DATASETS, evidence)
    assert "small, stands in for R18 and the larger, large, for R50" in text
    assert "not judged here" not in text and "no evidence" not in text
    assert "is no evidence about the claims." in page(DATASETS, evidence, drawn=True)
    assert "stands in" not in page(DATASETS, made_up())
    for other in ({"small": 1}, {"small": 1, "large": 2, "x": 3}, {"resnet18": 1, "large": 2}):
        assert claims.stand_ins(other) == {}


def test_every_table_is_one(monkeypatch):
    """Each row has as many cells as its header."""
    text = page(DATASETS, made_up(leaked=NAMES[::2], images=["all", 50]), similar())
    tables = re.findall(r"(?:^\|.*\n)+", text, re.M)
    assert len(tables) >= 12
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def similar() -> list[Similarity]:
    """The last data set is the most similar by the first measure."""
    measures = {key: float(i) for i, key in enumerate([*report.MEASURES, "leep_p"])}
    first = next(iter(measures))
    return [
        Similarity(
            dataset=name,
            backbone="resnet18",
            n=8,
            source_classes=10,
            measures={**measures, first: float(i)},
        )
        for i, name in enumerate(reversed(SETTINGS.grid.dataset))
    ]


def test_measures_that_hardly_vary_are_left_out():
    alike = [one.model_copy(update={"measures": {**one.measures, "logme": 1.44 + i / 1000}})
             for i, one in enumerate(similar())]  # fmt: skip
    text = page(DATASETS, made_up(), alike)
    assert "Measures that hardly vary are left out: Batch-norm" not in text
    assert "LogME" in text.split("Measures that hardly vary are left out: ")[1].splitlines()[0]
    same = [one.model_copy(update={"measures": dict.fromkeys(one.measures, 1.0)}) for one in alike]
    assert "more similar |" not in page(DATASETS, made_up(), same)


def test_why_a_measure_is_missing_is_said():
    assert "\n–: " not in page(DATASETS, made_up(), similar())
    kept = [key for key in report.MEASURES if key not in ("batchnorm_frechet", "leep")]
    fewer = [one.model_copy(update={"measures": {key: one.measures[key] for key in kept}})
             for one in similar()]  # fmt: skip
    words = "because this backbone has no batch norm, and no head that was trained with it."
    assert f"–: not measured, {words}" in page(DATASETS, made_up(), fewer)


def test_four_data_sets_cannot_show_a_correlation():
    names = list(SETTINGS.grid.dataset)
    text = page(DATASETS, made_up(), similar())
    lines = text[text.index("| Data set   | Backbone") :].splitlines()[2:6]
    assert [line.split("|")[1].strip() for line in lines] == names[::-1]
    assert ["less similar" in line for line in lines] == [False, False, True, True]
    assert "even a perfect one has p = 0.083" in text
