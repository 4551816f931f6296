"""What reruns after an edit, an experiment, a clone or a merge, and that nothing else does."""

import json
import re
import shutil
from itertools import count, zip_longest
from pathlib import Path
from random import Random

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT, draw_source
from tests.study import Study, initialise, save_weights, yaml
from transfer import code

release = pytest.mark.release
REMOVED = 0.0003  # a learning rate of the finished study, which leaves the grid
PAGES = {"tables", "evidence", "report", "recommend"}


@pytest.fixture
def study(finished, tmp_path) -> Study:
    """A copy, to change."""
    return finished.copy(tmp_path / "study")


def clone(study: Study, folder: Path) -> Study:
    study.run("git", "clone", "-q", ".", str(folder))
    made = Study(folder)
    made.run("git", "config", "user.email", "b@example.org")
    made.run("git", "config", "user.name", "b")
    shutil.copytree(study.folder / "data/raw", folder / "data/raw", dirs_exist_ok=True)
    return made


def stale(study: Study) -> set[str]:
    """The stages that DVC would run first, once it knows code and settings."""
    study.repro("code", "params")
    return set(json.loads(study.run("dvc", "status", "--json")))


def edit(study: Study, path: str, before: str, after: str) -> None:
    text = (study.folder / path).read_text()
    assert before in text
    (study.folder / path).write_text(text.replace(before, after, 1))


def stages_of(study: Study) -> dict[str, str]:
    """Stage → script; of those that have run, which an edit's are too."""
    lock = YAML(typ="safe").load(study.folder / "dvc.lock")
    return {name: name.split("@")[0] for name in lock["stages"]}


def importing(study: Study, module: str) -> set[str]:
    """The stages that import a module, all but those that have run by then."""
    return {
        stage
        for stage, script in stages_of(study).items()
        if module in code.modules(f"stages.{script}", study.folder) and stage not in FIRST
    }


FIRST = ("code", "params")


@release
def test_another_batch_size_forced_in_the_code_reruns_what_imports_it(study):
    edit(study, "transfer/params.py", "v for k, v in self if", "4 for k, v in self if")
    found = stale(study)
    assert found == importing(study, "transfer.params")
    assert {s.split("@")[0] for s in found} >= {"train", "split", "tables", "report"}


@release
def test_another_label_reruns_what_imports_it(study):
    edit(study, "transfer/runs.py", 'f"{text} {self.recipe}"', 'f"{text}, {self.recipe}"')
    assert stale(study) == importing(study, "transfer.runs")


def test_a_comment_reruns_nothing(study):
    edit(study, "transfer/training/engine.py", "\n\n\n", "\n\n\n# How it is trained.\n\n")
    edit(study, "transfer/evidence/stats.py", '"""', '"""Once more: ')
    assert study.repro() == {"code"}


@pytest.mark.release
def test_a_rate_that_left_the_grid_leaves_the_lock_and_a_clone_runs_nothing(study, tmp_path):
    study.change("grid.lr", [0.001])
    ran = study.repro()
    assert ran <= {"params", *PAGES} and "tables" in ran
    lock = (study.folder / "dvc.lock").read_text()
    runs = yaml.load(lock)["stages"]["tables"]["deps"][1]
    assert (runs["path"], runs["nfiles"]) == ("metrics/runs", 2 * 3)
    study.commit()
    study.run("dvc", "push", "-q")
    there = clone(study, tmp_path / "clone")
    there.run("dvc", "pull", "-q")
    assert there.repro() == set()
    assert there.run("git", "status", "--porcelain") == ""
    assert there.metrics() == study.metrics()
    # Back in the grid, its runs come back from DVC's cache.
    study.change("grid.lr", [0.001, REMOVED])
    assert not [stage for stage in study.repro() if stage.startswith("train@")]


@release
def test_without_dvc_checkout_what_is_not_of_the_commit_is_cleared(study):
    study.change("grid.lr", [0.001])
    study.repro()
    study.commit()
    study.run("git", "checkout", "-q", "HEAD~1")
    study.repro()
    study.run("git", "checkout", "-q", "-")
    study.repro()
    assert study.run("git", "status", "--porcelain") == ""
    assert len(list((study.folder / "metrics/runs").iterdir())) == 2


@release
def test_after_an_experiment_the_results_are_those_of_the_commit(study, finished):
    study.run("dvc", "exp", "run", "-S", "train.epochs=2", "-S", f"grid.lr=[{REMOVED}]")
    page = study.folder / "metrics/recommendation.md"
    assert "R18 0.001" not in page.read_text()
    study.run("git", "checkout", "-q", ".")
    study.run("dvc", "checkout", "-q")
    assert study.repro() == set()
    assert study.metrics() == finished.metrics()
    page.unlink()
    assert study.repro() == {"recommend"}
    assert study.metrics() == finished.metrics()


def test_the_recommendation_is_the_same_again_and_times_are_of_their_run(study, finished):
    assert "R18" in study.run("python", "-m", "stages.recommend")
    assert study.metrics() == finished.metrics()
    times = sorted((study.folder / "data/times").iterdir())
    said = study.run("python", "-m", "stages.recommend")
    assert all(f"  {path.stem}" in said for path in times) and len(times) == 4
    for path in times:
        entry = json.loads(path.read_text())
        path.write_text(json.dumps(entry | {"of": "0" * 64, "seconds": 1e6}))
    said = study.run("python", "-m", "stages.recommend")
    assert "no times to show" in said and "min" not in said
    assert study.metrics() == finished.metrics()


@pytest.mark.parametrize("path", [pytest.param("params.yaml", marks=release), "sample/params.yaml"])
def test_set_param_changes_the_value_and_nothing_else(tmp_path, path):
    study = Study(tmp_path)
    shutil.copy(ROOT / path, tmp_path / "params.yaml")
    pipeline = {"stages": {"one": {"cmd": "true", "deps": ["params.yaml"]}}}
    yaml.dump(pipeline, tmp_path / "dvc.yaml")
    initialise(study)
    study.run("dvc", "init", "-q")
    study.commit()
    before = (tmp_path / "params.yaml").read_text()
    study.run(*["dvc", "exp", "run", "-S", "train.epochs=50", "-S", "grid.lr=[0.001,0.0003]"])
    after = (tmp_path / "params.yaml").read_text()
    first = re.sub(r"\n  epochs: \d+(?=\n  batch)", "\n  epochs: 50", before)
    assert after == first.replace("  - 0.0001\n", "  - 0.0003\n") != before


@release
def test_two_branches_merge_by_the_documented_command(study, tmp_path):
    """As docs/experiments.md has it; each branch was run in a clone of its own."""
    words = re.search(r"## Merge two branches.*?```\n(.*?)```", DOCS.read_text(), re.S)[1]
    study.run("git", "branch", "-m", "main")
    for branch, rate in {"ours": 0.01, "theirs": 0.0001}.items():
        there = clone(study, tmp_path / branch)
        there.run("git", "checkout", "-q", "-b", branch)
        there.run("dvc", "pull", "-q")
        there.change("grid.lr", [0.001, REMOVED, rate])
        there.repro()
        there.commit()
        there.run("dvc", "push", "-q", "--run-cache")
        there.run("git", "push", "-q", "origin", branch)
    study.run("git", "checkout", "-q", "ours")
    merged = study.run(*["git", "merge", "theirs"], status=1)
    assert "CONFLICT (content): Merge conflict in params.yaml" in merged
    yaml.load(study.folder / "dvc.lock")  # whole, if not right
    lines = (study.folder / "params.yaml").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("<<<<<<<", "=======", ">>>>>>>"))]
    (study.folder / "params.yaml").write_text("\n".join(kept) + "\n")
    command = next(line for line in words.splitlines() if line.startswith("dvc repro"))
    said = study.run("bash", "-ec", command)
    assert not re.findall(r"^Running stage 'train@", said, re.M)
    study.run("git", "commit", "-qm", "Merge branch 'theirs'")
    assert study.run("git", "status", "--porcelain") == "" and study.repro() == set()
    rates = {run.name.split("-")[3] for run in (study.folder / "metrics/runs").iterdir()}
    assert rates == {"0.001", "0.0003", "0.01", "0.0001"}


DOCS = ROOT / "docs/experiments.md"


# Fifty edits, of code, settings, images and weights; each undone before the next. A dozen stand for
# them but before a release.

MEANS = "\n_EDITED = {number}\n"
MEANS_NOTHING = "\n# Edited: {number}.\n"
SETTINGS = {
    "datasets.one.title": {"tables", "evidence", "report", "recommend"},
    "datasets.one.quadrant": {"tables", "evidence", "report", "recommend"},
    "datasets.one.count.train": {"split@one"},
    "split.seed": {"split@one"},
    "pack.resize": {"pack@one"},
    "weights.resnet18.sha256": {"weights@resnet18"},
    "train.epochs": {"train", "report", "recommend"},  # the cost of a run
    "train.batch_size": {"train"},
    "train.schedule.StepLR.gamma": {"train"},
    "train.device": {"train", "similarity@one-resnet18"},
    "train.keep_features": set(),
    "train.probe_epochs": set(),
    "recipes.default": set(),
    "recipes.other": set(),
}
CHANGED = {
    "datasets.one.title": "another",
    "datasets.one.quadrant": "small, similar",
    "datasets.one.count.train": 3,
    "split.seed": 1,
    "pack.resize": 44,
    "train.epochs": 2,
    "train.batch_size": 3,
    "train.schedule.StepLR.gamma": 0.5,
    "train.device": "cuda",
    "train.keep_features": False,
    "train.probe_epochs": 7,
    "recipes.default": {"epochs": 1},
    "recipes.other": {"epochs": 9},
}
FILES = [
    str(path.relative_to(ROOT))
    for name in ("stages", "transfer")
    for path in sorted((ROOT / name).rglob("*.py"))
]
OTHERS = ("image", "other image", "weights", "new recipe")


@pytest.fixture(scope="module")
def edited(finished, tmp_path_factory) -> Study:
    return finished.copy(tmp_path_factory.mktemp("edits") / "study")


def drawn_edits(number: int) -> list[tuple]:
    """Edits of every kind in turn, without repetition."""
    kinds = [
        [("code", file, True) for file in FILES],
        [("code", file, False) for file in FILES],
        [("setting", name, None) for name in CHANGED],
        [(other, None, None) for other in OTHERS],
    ]
    rng = Random(0)
    for kind in kinds:
        rng.shuffle(kind)
    in_turn = [edit for turn in zip_longest(*kinds) for edit in turn if edit]
    return in_turn[:number]


EDITS = [
    pytest.param(*edit, id=" ".join(map(str, edit)), marks=release if late else ())
    for late, edit in zip([False] * 12 + [True] * 38, drawn_edits(50), strict=True)
]
NUMBER = count()


@pytest.mark.parametrize(("kind", "what", "means"), EDITS)
def test_exactly_what_could_come_out_otherwise_reruns(edited, finished, kind, what, means):
    try:
        expected = make(edited, kind, what, means)
        assert stale(edited) == expected
    finally:
        undo(edited, finished)


def make(study: Study, kind: str, what: str | None, means: bool | None) -> set[str]:
    """Make the edit; the stages that DVC has to find stale by it, those of FIRST aside."""
    all_stages = stages_of(study)
    runs = {stage for stage in all_stages if stage.startswith("train@")}
    if kind == "code":
        text = MEANS if means else MEANS_NOTHING
        path = study.folder / what
        path.write_text(path.read_text() + text.format(number=next(NUMBER)))
        module = what.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        return importing(study, module) if means else set()
    if kind == "setting":
        study.change(what, CHANGED[what])
        expected = SETTINGS[what]
        return (expected - {"train"}) | (runs if "train" in expected else set())
    if kind == "image":
        draw_source(study.folder / "data/raw/one", {"more": 1}, seed=next(NUMBER))
        return {"split@one"}
    if kind == "other image":
        draw_source(study.folder / "data/raw/another", {"train": 1}, seed=next(NUMBER))
        return set()
    if kind == "new recipe":
        study.change("recipes.new", {"optimizer": "SGD"})
        return set()
    digest = save_weights(study.folder / "data/raw/resnet18.pth", seed=next(NUMBER) + 100)
    study.change("weights.resnet18.sha256", digest)
    return {"weights@resnet18"}


def undo(study: Study, finished: Study) -> None:
    study.run("git", "checkout", "-q", ".")
    shutil.rmtree(study.folder / "data/raw")
    shutil.copytree(finished.folder / "data/raw", study.folder / "data/raw")
