"""The drawn study, made tiny: its own DVC repository beside a study that was never run."""

import pytest

from tests.conftest import ROOT
from tests.study import Study, yaml


def lines(study: Study, command: str, **options) -> list[str]:
    return [line for line in study.run("bash", "-c", command, **options).splitlines() if line]


def test_it_runs_all_once(sample):
    kinds = {stage.split("@")[0] for stage in sample.ran}
    assert kinds == {*yaml.load(ROOT / "dvc.yaml")["stages"]} - {"download", "weights"}
    assert (sample.folder / "metrics/figures/contact_sheet.png").is_file()
    assert sample.repro() == set()
    assert lines(sample, "git status --porcelain") == []


@pytest.mark.parametrize(
    "command",
    [
        "dvc status",
        "dvc checkout",
        "dvc pull",
        "dvc plots show dvc.yaml::",
        "dvc data status",
        *(f"cd .. && transfer/review/hook.sh {hook}" for hook in ("pre-commit", "pre-push")),
        "cd .. && PRE_COMMIT_CHECKOUT_TYPE=1 transfer/review/hook.sh post-checkout",
    ],
)
def test_commands_are_quiet_in_a_finished_sample(sample, command):
    assert len(lines(sample, command)) <= 5
    assert lines(sample, "git status --porcelain") == []


@pytest.mark.parametrize(
    "command", ["dvc exp run sample/dvc.yaml -S train.epochs=2", "dvc repro sample/dvc.yaml"]
)
def test_the_samples_pipeline_is_refused_from_the_root(sample, command):
    root = Study(sample.folder.parent)
    assert "sample/dvc.yaml' is dvc-ignored" in lines(root, command, status=255)[-1]
    assert lines(root, "git status --porcelain") == []


@pytest.mark.release
def test_the_review_looks_into_both_repositories(sample, tmp_path):
    made = sample.copy(tmp_path / "copy")
    made.change("train.epochs", 2)
    made.repro()
    made.commit()
    made.run("git", "clone", "-q", "..", str(tmp_path / "clone"))
    text = Study(tmp_path / "clone").run("python", "-m", "transfer", "review", "HEAD~1", "--check")
    assert "`dvc.yaml`: not run yet" in text and "`sample/dvc.yaml`: dvc.lock is up to date" in text
    assert "| `sample/params.yaml` | `train.epochs` | `1` | `2` |" in text
    assert "`sample/metrics/summary.json`: " in text and "Both sides were trained on `cpu (" in text


def test_the_review_tells_an_edit_of_the_code_from_one_of_a_comment(sample, tmp_path):
    sample.run("git", "clone", "-q", "..", str(tmp_path / "clone"))
    root = Study(tmp_path / "clone")
    with open(root.folder / "transfer/pages/tables.py", "a") as file:
        file.write("\n# A comment.\n")
    with open(root.folder / "sample/params.yaml", "a") as file:
        file.write("\n# A comment.\n")
    text = root.run("python", "-m", "transfer", "review", "HEAD", "--check")
    assert "`sample/dvc.yaml`: dvc.lock is up to date" in text
    command = "`cd sample && dvc repro`"
    assert f"{command} would run only `code`, `params`, which takes seconds" in text
    with open(root.folder / "stages/tables.py", "a") as file:
        file.write("\n_EDITED = 1\n")
    text = root.run("python", "-m", "transfer", "review", "HEAD", "--check", status=1)
    assert f"{command} would run 3 stages, `code`, `params`, `tables`, and" in text


def test_a_clone_without_a_remote_is_told_so(sample, tmp_path):
    sample.run("git", "clone", "-q", "..", str(tmp_path / "clone"))
    said = lines(Study(tmp_path / "clone/sample"), "dvc pull", status=None)
    assert any("no default remote set" in line for line in said)


def test_experiments_fit_120_columns(sample, tmp_path):
    """Four data sets named as the paper's, and two settings that differ."""
    made = sample.copy(tmp_path / "copy")
    summary = made.json("metrics/summary.json")
    names = ("ants_bees", "cats_dogs", "glioma", "cars_bikes")
    summary["chosen"] = dict.fromkeys(names, 0.95625)
    # A stage that writes such a summary stands in for hours of training.
    pipeline = {
        "stages": {
            "one": {
                "cmd": "cp answer.json metrics/summary.json",
                "deps": ["params.yaml", "answer.json"],
                "metrics": [{"metrics/summary.json": {"cache": False}}],
            }
        }
    }
    yaml.dump(pipeline, made.folder / "dvc.yaml")
    yaml.dump(summary, made.folder / "answer.json")
    made.repro()
    made.commit()
    made.run("dvc", "exp", "run", "-n", "long", "-S", "train.epochs=2", "-S", "train.batch_size=8")
    table = lines(Study(made.folder.parent), "make experiments IN=sample")
    assert any("long" in line for line in table)
    assert max(map(len, table)) <= 120
