"""Many runs at once on a real Ray, with the real dvc and git."""

import os
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from tests.study import Study, small
from transfer.cluster.run import check_room

pytest.importorskip("ray", reason="Ray is an extra: requirements-ray.txt")
pytestmark = pytest.mark.release
COMMAND = (sys.executable, "-m", "transfer", "run", "--threads", "1")
COLLECTING = {"tables", "evidence", "report", "recommend"}


@pytest.fixture
def study(tmp_path) -> Study:
    folder = tmp_path / "study"
    folder.mkdir()
    return small(folder, ["one"])


def cluster(study: Study, *arguments: str, status: int = 0, **environment: str) -> str:
    environment["PYTHONPATH"] = str(study.folder)
    return study.run(*COMMAND, *arguments, status=status, **environment)


def late(study: Study) -> str:
    """What another driver says that starts while the first is at work."""
    while not (study.folder / "data/logs/.lock").exists():
        time.sleep(0.1)
    return cluster(study)


def test_two_workers_leave_the_collecting_alone_and_give_the_same_runs(study):
    with ThreadPoolExecutor() as second:
        waited = second.submit(late, study)
        output = cluster(study, "--workers", "2")
    said = waited.result()
    assert "python -m transfer run: waiting for process " in said
    assert "0 of 0 stale stages done" in said and "rwlock" not in said
    assert (
        "5 stages to run, 2 at once, in 2 groups" in output and "5 of 5 stale stages done" in output
    )
    assert study.repro() == COLLECTING
    pictures = {path.stem for path in (study.folder / "metrics/figures").iterdir()}
    assert "gains" in pictures and "similarity" not in pictures  # of one data set
    assert "0 of 0 stale stages done" in cluster(study)
    side_by_side = study.metrics()
    shutil.rmtree(study.folder / "data/features")
    study.run("dvc", "repro", "-s", "-f", "--no-run-cache", "train")
    assert study.metrics() == side_by_side


def test_a_failed_run_is_listed_and_the_others_go_on(study):
    stage = study.folder / "stages/train.py"
    text, line = stage.read_text(), "    study = params.load()\n"
    fault = '    if args["init"] == "scratch" and args["freezing"] == "frozen":\n'
    fault += '        raise cli.UserError("no luck")\n'
    stage.write_text(text.replace(line, line + fault))
    output = cluster(study, status=1)
    assert "4 of 5 stale stages done" in output
    failed = "train@one-all-miniresnet10-0.001-frozen-default-scratch-0"
    assert f"error: 1 stages failed: {failed}" in output
    assert "error: no luck" in output and "Traceback" not in output
    stage.write_text(text)
    assert "4 stages to run" in cluster(study)


def test_gpus_that_nobody_asked_for_are_named(study, monkeypatch, capsys):
    monkeypatch.chdir(study.folder)
    ray = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0}}])
    words = "Ray has GPUs (2), and every run takes the first it sees: give --gpus-per-run"
    for device, gpus, said in (("auto", 0.5, False), ("cpu", 0, False), ("auto", 0, True)):
        study.change("train.device", device)
        check_room(ray, Namespace(threads=1, gpus_per_run=gpus, address=None))
        assert (words in capsys.readouterr().out) == said


def test_what_cannot_be_given_is_one_line(study):
    """And no wait for what will never be there; nor is another Ray joined that runs here."""
    from ray.cluster_utils import Cluster

    lacking = "Ray has no node with 1 CPUs and 64 GPUs for a run; give another --gpus-per-run"
    another = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 64})
    try:
        said = cluster(study, "--gpus-per-run", "64", status=1)
    finally:
        another.shutdown()
    assert said.splitlines()[-1] == f"error: {lacking}"
    assert not (study.folder / "data/packed").exists()
    for address, reason in {
        "x": "Invalid address format",
        "127.0.0.1:9": "Connection refused",
    }.items():
        said = cluster(study, "--address", address, status=1)
        assert said.startswith(f"error: Ray at {address}: ") and reason in said
        assert said.count("\n") == 1
    for words in (
        "--gpus-per-run 1.5",
        "--workers 0",
        "--address auto --workers 2",
    ):
        last = cluster(study, *words.split(), status=2).splitlines()[-1]
        assert last.startswith("python -m transfer run: error: ") and words.split()[-2] in last


def test_workers_that_share_a_remote_alone(study, tmp_path):
    study.run("dvc", "remote", "add", "-q", "-d", "shared", str(tmp_path / "remote"))
    assert "not committed, so workers would not see it" in cluster(study, "--clone", status=1)
    study.commit()
    clones = tmp_path / "clones"
    clones.mkdir()
    output = cluster(study, "--clone", "--workers", "2", TMPDIR=str(clones), RAY_TMPDIR="/tmp")
    assert not list(clones.glob("study-worker-*"))
    assert "5 of 5 stale stages done" in output
    assert output.count("started ") == 2 and "running: 1 on " in output
    assert not (study.folder / "metrics/runs").exists()
    ran = study.repro("--pull", "--allow-missing")
    assert ran == COLLECTING


def test_a_lost_node_s_runs_go_on_elsewhere(tmp_path):
    from ray.cluster_utils import Cluster

    study = small(tmp_path, ["one"], seed=[0, 1, 2])
    study.run("dvc", "repro", "pack", "weights")
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    workers = [nodes.add_node(num_cpus=1) for _ in range(4)]
    try:
        process = subprocess.Popen(
            [*COMMAND, "--address", nodes.address],
            cwd=study.folder,
            env={**os.environ, "PYTHONPATH": str(study.folder), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines = []
        for line in process.stdout:
            lines.append(line)
            if sum(line.startswith("started") for line in lines) == 4 and workers:
                nodes.remove_node(workers.pop(), allow_graceful=False)
                workers.clear()
    finally:
        nodes.shutdown()
    assert process.wait() == 0, lines
    assert "13 of 13 stale stages done" in "".join(lines)
    assert any(line.endswith(" again\n") for line in lines), lines
    assert study.repro() == COLLECTING


def test_what_the_runs_do_not_need_is_not_made(tmp_path):
    study = small(tmp_path / "study", ["one", "two"])
    study.change("grid.dataset", ["one"])
    prepare = "from transfer.cluster import run; run.prepare()"
    study.run(sys.executable, "-c", prepare, PYTHONPATH=str(study.folder))
    packed = study.folder / "data/packed"
    assert (packed / "one").is_dir() and not (packed / "two").exists()
