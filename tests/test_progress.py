"""What a run says of itself while it goes on."""

import os
import pty
import re
import subprocess
import sys
import termios
from types import SimpleNamespace

from tests.conftest import ROOT
from transfer.runs import Run
from transfer.training.engine import EpochResult
from transfer.training.record import Epoch
from transfer.training.run import LIVE, shown, watched

RUN = Run(
    dataset="ab",
    images="all",
    backbone="resnet18",
    lr=0.1,
    freezing="frozen",
    recipe="default",
    init="scratch",
    seed=0,
)
JOB = SimpleNamespace(run=RUN, images=100)
RESULTS = [EpochResult(Epoch(i, 0.1, 0.5, 0.9, None, None, 0.6, 0.8), {}) for i in range(4)]
CODE = """
import time
from tests.test_progress import JOB, RESULTS
from transfer.training.run import watched
watched(JOB, 4, (time.sleep(0.2) or result for result in RESULTS))
"""


def test_lines_where_there_is_no_terminal(capsys):
    assert watched(JOB, 4, iter(RESULTS), every=0) == RESULTS
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    shape = rf"{RUN.name}: epoch 2/4, loss 0.500, test 0.800, \d+ images/s, \d+ s to go"
    assert re.fullmatch(shape, lines[1])
    watched(JOB, 4, iter(RESULTS))
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal():
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 10000).decode()
    shape = r"epoch 4/4 \|█+\| \d\d:\d\d to go, loss 0\.500, test 0\.800, \d+ images/s"
    assert re.search(shape, shown)


def test_the_curve_so_far_is_there_to_draw(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = shown(RUN, RESULTS)
    next(results)
    lines = LIVE.read_text().splitlines()
    assert lines[1:] == [f"{RUN.name},1,0.900000,0.800000"]
    assert list(results) == RESULTS[1:] and len(LIVE.read_text().splitlines()) == 5
