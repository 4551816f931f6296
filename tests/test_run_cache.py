"""A group of runs: trained by one process, each with the bytes that it has when trained alone."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from stages import train
from tests.conftest import ROOT, draw_split
from tests.study import by_hand, in_process, results
from transfer import params
from transfer.images import packed
from transfer.runs import RUNS, Run, runs
from transfer.training import models, run_cache
from transfer.training import run as training
from transfer.training.engine import Job

yaml = YAML()


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """What the train stage needs for a group of eight runs, and each run as it comes out alone."""
    folder = tmp_path_factory.mktemp("alone")
    draw_split(folder / "split", {"train": 8, "validation": 3, "test": 5})
    packed.write(folder / "split", folder / "data/packed/ab", resize=36, size=32, short_side=0)
    models.save_scratch(folder / "data/weights/miniresnet10-scratch.pth")
    torch.manual_seed(0)
    state = models.architecture("miniresnet10")(num_classes=3).state_dict()
    torch.save(state, folder / "data/weights/miniresnet10-pretrained.pth")
    settings = yaml.load(ROOT / "params.yaml")
    by_hand(settings)
    settings["train"].update(epochs=2, device="cpu")
    yaml.dump(settings, folder / "params.yaml")
    for run in group(folder):
        stage(folder, run, "--alone")
        assert not list((folder / run_cache.RUN_CACHE).glob("*"))
    return folder


@pytest.fixture
def study(alone, tmp_path) -> Path:
    """The same, with no run made."""
    shutil.copytree(alone, tmp_path / "study", ignore=shutil.ignore_patterns("metrics", "features"))
    return tmp_path / "study"


def group(study: Path) -> list[Run]:
    return runs(params.load(study / "params.yaml").grid, "ab")


def stage(study: Path, run: Run, *options: str, expected: int = 0) -> str:
    status, out, err = in_process(study, train.main, *dict(run).values(), *options)
    assert status == expected, out + err
    return out + err


def test_the_first_stage_trains_all_and_the_others_take_theirs_without_pytorch(study, alone):
    first, *others = group(study)
    assert stage(study, first).count("test accuracy") == 8
    assert len(list((study / run_cache.RUN_CACHE).glob("*"))) == 7
    code = "import sys\nfrom stages import train\n" + "".join(
        f"sys.argv[1:] = {list(map(str, dict(run).values()))}\ntrain.main()\n" for run in others
    )
    code += "assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=study, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert results(study / RUNS) == results(alone / RUNS)
    assert not list((study / run_cache.RUN_CACHE).glob("*"))


def test_what_is_kept_of_other_settings_is_not_taken(study):
    first, second, *_ = group(study)
    stage(study, first)
    settings = yaml.load(study / "params.yaml")
    settings["train"]["epochs"] = 1
    yaml.dump(settings, study / "params.yaml")
    assert second.name in stage(study, second)
    assert not list((study / run_cache.RUN_CACHE).glob(f"{second.name}.*"))


def test_a_run_that_cannot_be_trained_stops_its_own_stage_alone(study):
    (study / "data/weights/miniresnet10-pretrained.pth").write_bytes(b"no weights")
    kinds = {init: run for run in group(study) for init in [run.init]}
    assert stage(study, kinds["scratch"]).count("test accuracy") == 4
    assert "pretrained.pth: " in stage(study, kinds["pretrained"], expected=1)


def test_what_dvc_has_made_is_not_trained_again(study, monkeypatch):
    monkeypatch.chdir(study)
    loaded, (first, second, third, *others) = params.load(), group(study)
    texts = [Path("data/code/train"), Path("data/settings/default-frozen.json")]
    for path in [*texts, Path("data/settings/default-finetuned.json")]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)

    def entry(run: Run, code: Path) -> dict:
        made = [(path, run_cache.hashlib.md5(path.read_bytes()).hexdigest()) for path in texts]
        made[0] = code, made[0][1]
        made.append(("data/packed/ab", "1.dir"))
        return {"deps": [{"path": str(path), "md5": md5} for path, md5 in made]}

    pack = {"outs": [{"path": "data/packed/ab", "md5": "1.dir"}]}
    lock = {
        "pack@ab": pack,
        f"train@{second.name}": entry(second, texts[0]),
        f"train@{third.name}": entry(third, texts[1]),
    }
    yaml.dump({"schema": "2.0", "stages": lock}, study / "dvc.lock")
    assert run_cache.companions(first, loaded) == [third, *others]
    # In a fresh clone nothing is here, and what DVC has in its cache it does not run.
    lock[f"train@{first.name}"] = entry(first, texts[0])
    yaml.dump({"schema": "2.0", "stages": lock}, study / "dvc.lock")
    assert run_cache.companions(first, loaded) == [second, third, *others]
    second.folder.mkdir(parents=True)
    assert run_cache.companions(first, loaded) == [third, *others]


def test_what_a_companion_fails_of_is_left_to_its_own_stage(study, monkeypatch, capsys):
    monkeypatch.chdir(study)
    first, second, third, *_ = group(study)
    loaded, build = params.load(), Job.build

    def build_or_not(job: Job, checkpoint: Path) -> torch.nn.Module:
        if job.run == second:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
        return build(job, checkpoint)

    monkeypatch.setattr(Job, "build", build_or_not)
    training.train_group([first, second, third], loaded, every=60)
    assert [run_cache.take(run, run_cache.key(run, loaded)) for run in (first, second, third)] == [
        True,
        False,
        True,
    ]
    words = f"{second.name}: left to its own stage: CUDA out of memory. Tried to allocate 2 GiB\n"
    assert words in capsys.readouterr().err
    with pytest.raises(torch.OutOfMemoryError):
        training.train_group([second, first], loaded, every=60)


@pytest.mark.release
def test_a_group_killed_at_any_time_comes_out_the_same(study, alone):
    words = [str(value) for value in dict(group(study)[0]).values()]
    command = [sys.executable, "-m", "stages.train", *words, "--checkpoint-every", "0"]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for seconds in (3, 4, 5):
        process = subprocess.Popen(command, cwd=study, env=environment)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    for run in group(study):
        stage(study, run)
    assert results(study / RUNS) == results(alone / RUNS)
