"""An edit that is meant to change no result: a few runs stand for all, or say that it does."""

import json
import shutil

import pytest

from tests.study import Study, in_process
from transfer import accept


@pytest.fixture(scope="module")
def made(sample, tmp_path_factory) -> Study:
    return sample.copy(tmp_path_factory.mktemp("accept") / "repository")


def edit(study: Study, path: str, before: str, after: str) -> None:
    file = study.folder / path
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))


def trained(study: Study) -> dict[str, bytes]:
    runs = study.folder / "metrics/runs"
    return {
        str(path.relative_to(runs)): path.read_bytes() for path in runs.rglob("*") if path.is_file()
    }


def test_a_reworded_message_is_accepted_and_another_loss_is_not(made):
    before = trained(made)
    edit(made, "transfer/cli.py", "the disk is full; free", "there is no room on the disk: free")
    said = made.run("python", "-m", "transfer", "accept")
    assert "because of the code alone" in said and "gave the same bytes: pretrain@" in said
    assert json.loads(made.run("dvc", "status", "--json")) == {}
    assert trained(made) == before

    edit(
        made,
        "transfer/training/step.py",
        "loss = self.loss(outputs, labels)",
        "loss = 2 * self.loss(outputs, labels)",
    )
    said = made.run("python", "-m", "transfer", "accept", status=1)
    assert "gives another result, so nothing is recorded: " in said
    stale = json.loads(made.run("dvc", "status", "--json"))
    assert {stage.split("@")[0] for stage in stale} >= {"pretrain", "train"}
    assert trained(made) == before
    assert not list((made.folder / "data").glob(".accept*"))


def test_where_there_is_nothing_to_compare_it_says_so(made, tmp_path):
    status, _, err = in_process(tmp_path, accept.main)
    assert (status, err) == (1, "error: dvc.yaml: no such file; run from the folder of the study\n")
    study = made.copy(tmp_path / "repository")
    shutil.rmtree(study.folder / "metrics")
    shutil.rmtree(study.folder / "data/weights")
    said = study.run("python", "-m", "transfer", "accept", status=1)
    assert "are stale for other reasons, such as " in said
    assert said.splitlines()[-1].startswith("error: there is no recorded run to compare with")


@pytest.mark.parametrize(
    "how",
    [
        ["--name", "x"],
        pytest.param(["--name", "x", "--temp"], marks=pytest.mark.release),
        pytest.param(["--name", "x", "--queue"], marks=pytest.mark.release),
    ],
)
def test_an_experiment_holds_what_it_changed_and_an_edit_after_it_is_noticed(sample, tmp_path, how):
    study = sample.copy(tmp_path / "repository")
    study.run("dvc", "exp", "run", *how, "-S", "evidence.margin=0.02")
    if "--queue" in how:
        study.run("dvc", "queue", "start")
        study.run("dvc", "queue", "logs", "-f", "x", status=None)
    refs = study.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    ref = next(ref for ref in refs if ref.endswith("/x"))
    changed = study.run("git", "diff", "--name-only", "HEAD", ref).split()
    assert set(changed) <= {
        *(f"sample/{name}" for name in ("dvc.lock", "params.yaml", "metrics/recommendation.md")),
        *(f"sample/metrics/{name}" for name in ("report.md", "summary.json")),
    }
    links = study.run("git", "ls-tree", "--full-tree", f"{ref}:sample").splitlines()
    assert sum(line.startswith("120000") for line in links) == 2
    study.run("dvc", "exp", "apply", "x")
    study.run("git", "add", "-A", ".")
    study.run("git", "commit", "-qm", "x")
    assert json.loads(study.run("dvc", "status", "--json")) == {}
    edit(Study(study.folder.parent), "transfer/runs.py", '"metrics/runs"', '"metrics/" + "runs"')
    assert "code" in json.loads(study.run("dvc", "status", "--json"))
    said = study.run("python", "-m", "transfer", "review", "HEAD", "--check", status=1)
    assert "`cd sample && dvc repro` would run " in said
