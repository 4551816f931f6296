"""Many runs at once on a real Ray, with the real dvc and git."""

import shutil
import sys

import pytest

from tests.study import Study, small

pytest.importorskip("ray", reason="Ray is an extra: requirements-ray.txt")
COLLECTING = {"similarity@one-resnet18", "tables", "evidence", "report"}


@pytest.fixture
def study(tmp_path) -> Study:
    folder = tmp_path / "study"
    folder.mkdir()
    return small(folder, ["one"])


def cluster(study: Study, *arguments: str, status: int = 0) -> str:
    command = (sys.executable, "-m", "cluster.run", "--threads", "1", *arguments)
    return study.run(*command, status=status, PYTHONPATH=str(study.folder))


def test_two_workers_leave_the_collecting_alone_and_give_the_same_runs(study):
    output = cluster(study, "--workers", "2")
    assert "4 runs to train, 2 at once" in output and "4 of 4 stale runs trained" in output
    assert study.repro() == COLLECTING
    assert "0 of 0 stale runs trained" in cluster(study)
    side_by_side = study.metrics()
    shutil.rmtree(study.folder / "data/features")
    study.run("dvc", "repro", "-s", "-f", "--no-run-cache", "train")
    assert study.metrics() == side_by_side


def test_a_failed_run_is_listed_and_the_others_go_on(study):
    stage = study.folder / "stages/train.py"
    text, line = stage.read_text(), "    run, every = parse()\n"
    fault = '    if run.start == "scratch" and run.freezing == "frozen":\n'
    fault += '        raise cli.UserError("no luck")\n'
    stage.write_text(text.replace(line, line + fault))
    output = cluster(study, status=1)
    assert "3 of 4 stale runs trained" in output
    assert "error: 1 runs failed: train@one-all-resnet18-0.001-frozen-scratch-0" in output
    assert "error: no luck" in output and "Traceback" not in output
    stage.write_text(text)
    assert "4 runs to train" in cluster(study)


def test_workers_that_share_a_remote_alone(study, tmp_path):
    study.run("dvc", "remote", "add", "-q", "-d", "shared", str(tmp_path / "remote"))
    assert "not committed, so workers would not see it" in cluster(study, "--clone", status=1)
    study.commit()
    output = cluster(study, "--clone", "--workers", "2")
    assert "4 of 4 stale runs trained" in output
    assert not (study.folder / "metrics/runs").exists()
    ran = study.repro("--pull", "--allow-missing")
    assert ran == COLLECTING
