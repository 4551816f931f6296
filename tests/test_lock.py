"""DVC as workers run it writes whole files."""

import os
import random
import subprocess
import sys
import time

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT

WRITES = """
from dvc.utils.serialize import modify_yaml
from transfer.cluster.dvc import write_whole

write_whole()
while True:
    with modify_yaml("dvc.lock") as lock:
        lock["stages"] = {f"stage {i}": {"cmd": "x"} for i in range(300)}
        print(flush=True)
"""


@pytest.mark.parametrize("kills", [2, pytest.param(6, marks=pytest.mark.release)])
def test_a_dvc_lock_is_whole_when_its_writer_is_killed(tmp_path, kills):
    rng, (root, lock) = random.Random(0), (str(ROOT), tmp_path / "dvc.lock")
    for _ in range(kills):
        environment = {**os.environ, "PYTHONPATH": root}
        options = {"cwd": tmp_path, "env": environment, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", WRITES], **options) as writer:
            for _ in range(2):
                writer.stdout.readline()
            time.sleep(rng.uniform(0, 0.1))
            writer.kill()
        assert len(YAML(typ="safe").load(lock)["stages"]) == 300
