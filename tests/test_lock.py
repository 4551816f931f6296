"""DVC as workers run it writes whole files, and the text that DVC itself would."""

import os
import random
import subprocess
import sys
import time
from functools import wraps
from pkgutil import resolve_name

import pytest
from dvc import rwlock
from dvc.utils.serialize import dumps_yaml, parse_yaml
from ruamel.yaml import YAML

from tests.conftest import ROOT
from transfer.cluster import dvc
from transfer.cluster.dvc import with_stage

WRITES = {
    "dvc.lock": """
from itertools import count
from types import SimpleNamespace
from dvc.dvcfile import Lockfile
from dvc.stage import serialize
from transfer.cluster.dvc import patch

patch()
turn = 0
serialize.to_lockfile = lambda stage: {stage.name: {"cmd": f"{turn}"}}
track = SimpleNamespace(track_file=lambda path: None)
repo = SimpleNamespace(scm_context=track)
lock = SimpleNamespace(path="dvc.lock", relpath="dvc.lock", repo=repo)
stages = [SimpleNamespace(name=f"stage {i}") for i in range(100)]
for turn in count():
    Lockfile.dump_stages(lock, stages)
    print(flush=True)
""",
    "rwlock": """
from types import SimpleNamespace
from dvc.fs import localfs
from dvc.stage.decorators import rwlocked
from transfer.cluster.dvc import patch

patch()
lock = SimpleNamespace(is_locked=True)
repo = SimpleNamespace(lock=lock, tmp_dir=".", fs=localfs, config={"core": {}})
deps = [SimpleNamespace(fs_path=f"path {i}") for i in range(300)]
stage = SimpleNamespace(repo=repo, deps=deps)
run = rwlocked(read=["deps"])(lambda stage: print(flush=True))
while True:
    run(stage)
""",
}


@pytest.mark.parametrize("kills", [2, pytest.param(6, marks=pytest.mark.release)])
@pytest.mark.parametrize("file", WRITES)
def test_a_file_of_dvc_is_whole_when_its_writer_is_killed(tmp_path, file, kills):
    rng, root = random.Random(0), str(ROOT)
    for _ in range(kills):
        environment = {**os.environ, "PYTHONPATH": root}
        options = {"cwd": tmp_path, "env": environment, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", WRITES[file]], **options) as writer:
            for _ in range(2):
                writer.stdout.readline()
            time.sleep(rng.uniform(0, 0.1))
            writer.kill()
        found = YAML(typ="safe").load(tmp_path / file)
        if file == "dvc.lock":
            assert len(found["stages"]) == 100
        else:
            assert len(found.get("read", [])) in {0, 300}  # given back, or taken


def test_a_stage_is_replaced_or_added_as_dvc_would():
    text = (ROOT / "sample/dvc.lock").read_text()
    lock = parse_yaml(text, "dvc.lock")
    assert dumps_yaml(lock) == text
    long = {"cmd": "python -m " + "very " * 40 + "long", "deps": [{"path": "a: b", "size": 1}]}
    for name in [*list(lock["stages"])[::40], "new", "train@x-1e-05", "null", "'quoted'"]:
        changed = {**lock, "stages": lock["stages"] | {name: long}}
        assert with_stage(text, name, {name: long}) == dumps_yaml(changed)


@pytest.mark.parametrize(
    "text",
    [
        "stages:\n  a:\n    cmd: x\n",
        "schema: '2.0'\ndatasets: []\nstages:\n",
        "schema: '2.0'\nstages:\n  a:\n    cmd: x\ndatasets:\n- name: d\n",
    ],
)
def test_a_lock_of_another_form_is_left_to_dvc(text):
    assert with_stage(text, "new", {"new": {"cmd": "x"}}) == ""


@pytest.mark.parametrize("change", ["is missing", "has another parameter"])
@pytest.mark.parametrize("name", dvc.USED)
def test_a_dvc_that_is_another_inside_runs_as_it_is(monkeypatch, capsys, name, change):
    within, _, last = name.replace(":", ".").rpartition(".")
    holder = resolve_name(within)
    if change == "is missing":
        monkeypatch.delattr(holder, last)
    else:
        other = wraps(getattr(holder, last))(lambda another: None)
        del other.__wrapped__
        monkeypatch.setattr(holder, last, other)
    before = getattr(rwlock, "rwlock", None)
    monkeypatch.setattr("sys.argv", ["dvc", "--version"])
    monkeypatch.setattr("transfer.cli.end_with_parent", lambda: None)
    with pytest.raises(SystemExit) as ended:
        dvc.main()
    assert ended.value.code == 0 and before is getattr(rwlock, "rwlock", None)
    said = capsys.readouterr().err
    assert said.startswith(f"{name}: differs in this version of DVC, ")
    assert said.count("\n") == 1


def test_this_dvc_has_all_that_is_replaced():
    assert not dvc.first_difference()
