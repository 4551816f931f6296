"""What goes wrong on real machines: `dvc repro` recovers, and nothing finished is lost."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.study import Study

release = pytest.mark.release
RUN = "one-all-miniresnet10-0.001-finetuned-default-pretrained-0"
GROUP = "one-all-miniresnet10-default-0"


@pytest.fixture(scope="module")
def study(finished, tmp_path_factory) -> Study:
    made = finished.copy(tmp_path_factory.mktemp("faults") / "study")
    made.whole = made.metrics()
    return made


def cached(study: Study, stage: str, file: str) -> Path:
    """Where DVC's cache keeps a file of the folder that the stage makes."""
    lock = YAML(typ="safe").load(study.folder / "dvc.lock")
    cache = study.folder / ".dvc/cache/files/md5"
    (out,) = lock["stages"][stage]["outs"]
    listed = json.loads((cache / out["md5"][:2] / out["md5"][2:]).read_text())
    md5 = next(entry["md5"] for entry in listed if entry["relpath"] == file)
    return cache / md5[:2] / md5[2:]


@pytest.mark.parametrize(
    "harm",
    [pytest.param("truncated", marks=release), "flipped", pytest.param("gone", marks=release)],
)
def test_a_damaged_cache_object_is_made_again(study, harm):
    path = cached(study, f"train@{RUN}", "predictions.npz")
    content = bytearray(path.read_bytes())
    path.unlink()
    if harm == "flipped":
        content[len(content) // 2] ^= 1
    if harm != "gone":
        path.write_bytes(content if harm == "flipped" else content[:-100])
    shutil.rmtree(study.folder / "metrics/runs" / RUN)
    ran = study.repro()
    assert {stage for stage in ran if stage.startswith("train@")} == {f"train@{RUN}"}
    assert study.metrics() == study.whole
    assert study.repro() == set()


def test_a_deleted_lock_comes_back_without_training(study):
    before = (study.folder / "dvc.lock").read_text()
    (study.folder / "dvc.lock").unlink()
    assert not [stage for stage in study.repro() if stage.startswith("train@")]
    assert study.metrics() == study.whole
    yaml = YAML(typ="safe")
    assert yaml.load(study.folder / "dvc.lock") == yaml.load(before)


def test_a_clock_that_jumps_reruns_nothing(study):
    for path in (study.folder / "transfer").rglob("*.py"):
        os.utime(path, (2e9, 2e9) if path.stem < "m" else (1e9, 1e9))
    assert study.repro() == set()


@pytest.mark.parametrize(
    "whom,number",
    [
        ("terminal", signal.SIGINT),
        pytest.param("dvc", signal.SIGTERM, marks=release),
        pytest.param("stage", signal.SIGINT, marks=release),
        pytest.param("stage", signal.SIGTERM, marks=release),
    ],
)
def test_a_signal_stops_it_and_the_next_run_recovers(study, whom, number):
    study.change("train.epochs", 4)
    shutil.rmtree(study.folder / "data/checkpoints", ignore_errors=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        ["dvc", "repro", "--no-run-cache", "-f", "-s", f"train@{RUN}"],
        cwd=study.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A background job ignores SIGINT, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    lock = study.folder / f"data/checkpoints/.{GROUP}.lock"
    while not (lock.exists() and lock.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    stage = int(lock.read_text().split()[1])
    # A terminal's Ctrl-C reaches all.
    os.kill({"terminal": -process.pid, "dvc": process.pid, "stage": stage}[whom], number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and "Traceback" not in output
    study.change("train.epochs", 1)
    study.run("git", "checkout", "-q", ".")
    study.repro()
    assert study.metrics() == study.whole
    assert study.repro() == set()


@release
def test_a_disk_that_is_full_or_read_only_is_said_and_recovered_from(study, tmp_path):
    """On a file system of its own, which a user namespace mounts without rights."""
    if subprocess.run("unshare -rm mount -t tmpfs none /mnt", shell=True).returncode:
        pytest.skip("no file system can be mounted here")
    script = f"""
        set -e
        mount -t tmpfs -o size=1G none {tmp_path}
        git clone -q {study.folder} {tmp_path}/study
        cd {tmp_path}/study
        mkdir -p data
        cp -r {study.folder}/data/raw data/
        dvc repro -q pack
        used=$(df -k --output=used . | tail -1)
        for kibibytes in 500 4000; do
            mount -o remount,size=$((used + kibibytes))k {tmp_path}
            ! dvc repro
        done
        mount -o remount,size=1G,ro {tmp_path}
        ! dvc repro
        mount -o remount,rw {tmp_path}
        dvc repro
        echo recovered
        dvc repro
        cp -r metrics {study.folder}/after
    """
    output = study.run("unshare", "-rm", "sh", "-c", script)
    assert "the disk is full; free some space and run it again" in output  # the stage's word
    assert "Read-only file system" in output and "Traceback" not in output
    assert "Running stage" not in output.split("recovered")[1]
    assert study.metrics("after") == study.whole
