"""What reruns after an edit, an experiment, a clone or a merge, and that nothing else does."""

import json
import re
import shutil
from itertools import count, zip_longest
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT, draw_source
from tests.study import Study, initialise, save_weights, yaml

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


# What of the study's stages reruns when the code of these files means something else.
COLLECTING = {"evidence", "report", "recommend"}
ALL = {"split", "pack", "weights", "train", "similarity", "tables", *COLLECTING}
CODE = {
    "transfer/files.py": ALL,
    "transfer/training/run.py": {"train"},
    "transfer/cluster/run.py": set(),
    "transfer/pages/tables.py": {"tables"},
    "transfer/evidence/stats.py": COLLECTING,
    "transfer/training/weights.py": {"weights"},
    "transfer/training/check.py": set(),  # of params, which has run by then
    "stages/split.py": {"split"},
    "stages/draw.py": set(),
}


def of_scripts(study: Study, scripts: set[str]) -> set[str]:
    return {stage for stage, script in stages_of(study).items() if script in scripts}


@release
def test_another_batch_size_forced_in_the_code_reruns_what_imports_it(study):
    edit(study, "transfer/params.py", "v for k, v in self if", "4 for k, v in self if")
    assert stale(study) == of_scripts(study, ALL)


@release
def test_another_label_reruns_what_imports_it(study):
    edit(study, "transfer/runs.py", 'f"{text} {self.recipe}"', 'f"{text}, {self.recipe}"')
    assert stale(study) == of_scripts(study, ALL - {"split", "pack", "weights"})


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
    deps = {dep["path"]: dep for dep in yaml.load(lock)["stages"]["tables"]["deps"]}
    assert deps["metrics/runs"]["nfiles"] == 2 * 3
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
    assert "miniR10 0.001" not in page.read_text()
    study.run("git", "checkout", "-q", ".")
    study.run("dvc", "checkout", "-q")
    assert study.repro() == set()
    assert study.metrics() == finished.metrics()
    page.unlink()
    assert study.repro() == {"recommend"}
    assert study.metrics() == finished.metrics()


def test_the_recommendation_is_the_same_again_and_times_are_of_their_run(study, finished):
    assert "miniR10" in study.run("python", "-m", "stages.recommend")
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


# Edits of code, settings, images and weights; each undone before the next. A dozen stand for all
# but before a release.

SETTINGS = {
    "datasets.one.title": {"tables", "evidence", "report", "recommend"},
    "datasets.one.quadrant": {"tables", "evidence", "report", "recommend"},
    "datasets.one.count.train": {"split@one"},
    "split.seed": {"split@one"},
    "pack.resize": {"pack@one"},
    "weights.miniresnet10.sha256": {"weights@miniresnet10"},
    "train.epochs": {"train", "report", "recommend"},  # the cost of a run
    "train.batch_size": {"train"},
    "train.schedule.StepLR.gamma": {"train"},
    "train.device": {"train", "similarity@one-miniresnet10"},
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
OTHERS = ("image", "other image", "weights", "new recipe")


@pytest.fixture(scope="module")
def edited(finished, tmp_path_factory) -> Study:
    return finished.copy(tmp_path_factory.mktemp("edits") / "study")


KINDS = [
    [("code", file) for file in CODE],
    [("setting", name) for name in CHANGED],
    [(other, None) for other in OTHERS],
]
IN_TURN = [edit for turn in zip_longest(*KINDS) for edit in turn if edit]
EDITS = [
    pytest.param(*edit, id=" ".join(filter(None, edit)), marks=release if number >= 12 else ())
    for number, edit in enumerate(IN_TURN)
]
NUMBER = count()


@pytest.mark.parametrize(("kind", "what"), EDITS)
def test_exactly_what_could_come_out_otherwise_reruns(edited, finished, kind, what):
    try:
        expected = make(edited, kind, what)
        assert stale(edited) == expected
    finally:
        undo(edited, finished)


def make(study: Study, kind: str, what: str | None) -> set[str]:
    """Make the edit; the stages that DVC has to find stale by it, code and params aside."""
    if kind == "code":
        path = study.folder / what
        path.write_text(f"{path.read_text()}\n_EDITED = {next(NUMBER)}\n")
        return of_scripts(study, CODE[what])
    if kind == "setting":
        study.change(what, CHANGED[what])
        runs = of_scripts(study, {"train"} & SETTINGS[what])
        return SETTINGS[what] - {"train"} | runs
    if kind == "image":
        draw_source(study.folder / "data/raw/one", {"more": 1}, seed=next(NUMBER))
        return {"split@one"}
    if kind == "other image":
        draw_source(study.folder / "data/raw/another", {"train": 1}, seed=next(NUMBER))
        return set()
    if kind == "new recipe":
        study.change("recipes.new", {"optimizer": "SGD"})
        return set()
    digest = save_weights(study.folder / "data/raw/miniresnet10.pth", seed=next(NUMBER) + 100)
    study.change("weights.miniresnet10.sha256", digest)
    return {"weights@miniresnet10"}


def undo(study: Study, finished: Study) -> None:
    study.run("git", "checkout", "-q", ".")
    shutil.rmtree(study.folder / "data/raw")
    shutil.copytree(finished.folder / "data/raw", study.folder / "data/raw")
