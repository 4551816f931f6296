"""The front door: `python -m transfer`."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.study import in_process
from transfer.__main__ import VERBS, main


def asked(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "transfer", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_it_lists_its_verbs_and_refuses_another():
    listed = asked()
    assert listed.returncode == 0
    assert all(f"\n  {verb} " in listed.stdout for verb in VERBS)
    refused = asked("trian")
    assert refused.returncode == 1 and "no verb 'trian'" in refused.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_says_how_it_is_used(verb):
    status, out, _ = in_process(ROOT, main, verb, "--help")
    assert status == 0 and out.startswith(f"usage: python -m transfer {verb} ")
