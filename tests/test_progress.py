"""What a run says of itself while it goes on."""

import os
import pty
import re
import subprocess
import sys
import termios

import pytest

from tests.conftest import ROOT
from transfer import cli
from transfer.runs import Run
from transfer.training.engine import Outcome
from transfer.training.progress import watched
from transfer.training.record import Epoch
from transfer.training.run import shown

OUTCOMES = [Outcome(Epoch(i, 0.1, 0.5, 0.9, None, None, 0.6, 0.8), {}) for i in range(4)]
CODE = """
import time
from tests.test_progress import OUTCOMES
from transfer.training.progress import watched
watched("run", 4, 100, (time.sleep(0.2) or outcome for outcome in OUTCOMES))
"""


def test_lines_where_there_is_no_terminal(capsys):
    assert watched("run", 4, 100, iter(OUTCOMES), every=0) == OUTCOMES
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    shape = r"run: epoch 2/4, loss 0.500, test 0.800, \d+ images/s, \d+ s to go"
    assert re.fullmatch(shape, lines[1])
    watched("run", 4, 100, iter(OUTCOMES))
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal():
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 10000).decode()
    shape = r"epoch 4/4 \|█+\| \d\d:\d\d to go, loss 0\.500, test 0\.800, \d+ images/s"
    assert re.search(shape, shown)


def test_tensorboard_has_the_curve(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    place = {"dataset": "ab", "images": "all", "backbone": "resnet18", "lr": 0.1}
    run = Run(**place, freezing="frozen", recipe="default", start="scratch", seed=0)
    monkeypatch.chdir(tmp_path)
    assert list(shown(run, OUTCOMES)) == OUTCOMES and not (tmp_path / "board").exists()
    monkeypatch.setenv("TENSORBOARD", "board")
    for _ in range(2):  # trained again, with one curve to show
        assert list(shown(run, OUTCOMES)) == OUTCOMES
    events = EventAccumulator(str(tmp_path / "board" / run.name))
    events.Reload()
    assert [one.step for one in events.Scalars("test_accuracy")] == [1, 2, 3, 4]
    assert [one.value for one in events.Scalars("lr")] == [pytest.approx(0.1)] * 4
    assert "validation_loss" not in events.Tags()["scalars"]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(cli.UserError, match="pip install tensorboard"):
        list(shown(run, OUTCOMES))
