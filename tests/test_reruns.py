"""What reruns after an edit, an experiment, a clone or a merge, and that nothing else does."""

import json
import re
import shutil
from pathlib import Path

import pytest

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
    study.run("git", "clean", "-qfd", "metrics/figures")  # pictures that only the experiment has
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
    assert "no times to show" in said and not re.search(r"\d min", said)
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


# Each edit is undone before the next.

TRAINED = {
    f"train@one-all-miniresnet10-{lr}-finetuned-default-{init}-0"
    for lr in ("0.001", REMOVED)
    for init in ("pretrained", "scratch")
}
SIMILARITY = "similarity@one-miniresnet10"
CODE = {
    "transfer/training/run.py": TRAINED,
    "transfer/training/weights.py": {"weights@miniresnet10"},
    "transfer/evidence/stats.py": PAGES - {"tables"},
    "transfer/pages/tables.py": {"tables"},
    "transfer/cluster/run.py": set(),
    "transfer/training/preflight.py": set(),  # of params, which has run by then
}
SETTINGS = [
    ("datasets.one.title", "another", PAGES),
    ("pack.resize", 44, {"pack@one"}),
    ("train.batch_size", 3, TRAINED),
    ("train.epochs", 2, TRAINED | PAGES - {"tables"}),  # which show what a run costs
    ("train.device", "cuda", TRAINED | {SIMILARITY}),
    ("train.probe_epochs", 7, set()),
    ("recipes.other", {"epochs": 9}, set()),
]


@pytest.fixture(scope="module")
def edited(finished, tmp_path_factory) -> Study:
    return finished.copy(tmp_path_factory.mktemp("edits") / "study")


@pytest.mark.parametrize(("path", "expected"), CODE.items(), ids=CODE)
def test_code_reruns_the_stages_that_import_it(edited, path, expected):
    text = (edited.folder / path).read_text()
    (edited.folder / path).write_text(f"{text}\n_EDITED = 1\n")
    try:
        assert stale(edited) == expected
    finally:
        edited.run("git", "checkout", "-q", ".")


@pytest.mark.parametrize(("path", "value", "expected"), SETTINGS, ids=[row[0] for row in SETTINGS])
def test_a_setting_reruns_the_stages_that_depend_on_it(edited, path, value, expected):
    edited.change(path, value)
    try:
        assert stale(edited) == expected
    finally:
        edited.run("git", "checkout", "-q", ".")


def test_images_and_weights_rerun_what_reads_them(study):
    draw_source(study.folder / "data/raw/another", {"train": 1})
    assert stale(study) == set()
    draw_source(study.folder / "data/raw/one", {"more": 1})
    digest = save_weights(study.folder / "data/raw/miniresnet10.pth", seed=100)
    study.change("weights.miniresnet10.sha256", digest)
    assert stale(study) == {"split@one", "weights@miniresnet10"}
