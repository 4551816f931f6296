"""The comment on a pull request, on a real git and DVC repository that trains nothing."""

import json
import re
import shutil
import sys

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT
from tests.study import Study
from transfer.commands import following, preceding
from transfer.evidence.stats import newcombe
from transfer.review import page

PIPELINE = """\
stages:
  pack:
    cmd: cat raw.txt > packed.txt
    deps: [raw.txt]
    outs: [packed.txt]
  tables:
    cmd: mkdir -p metrics && cat answer.json > metrics/summary.json
    deps: [answer.json, packed.txt]
    params: [lr]
    metrics:
      - metrics/summary.json:
          cache: false
"""
NEVER_RUN = "stages:\n  nothing:\n    cmd: 'true'\n"
CELLS = {
    "r18-0.001-frozen": {"accuracy": 0.7, "baseline": 0.5},
    "r18-0.001-finetuned": {"accuracy": 0.8, "baseline": 0.5},
    "r18-0.0001-frozen": {"accuracy": 0.6, "baseline": 0.5},
    "test_images": 160,
}
ANSWER = {
    "chosen": {"cells": 0.75},
    "setting": {"cells": "r18-0.001-frozen-pretrained"},
    "rows": {"cells": CELLS},
    "trained": {"device": "cpu (AVX2, 2 threads)", "packages": "torch 2.15.0"},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Study:
    """Run and committed: the base of the changes."""
    study = Study(tmp_path_factory.mktemp("base"))
    write(study, "dvc.yaml", PIPELINE)
    write(study, "never/dvc.yaml", NEVER_RUN)
    write(study, "params.yaml", "lr: 0.001\n")
    write(study, "raw.txt", "raw")
    write(study, "answer.json", json.dumps(ANSWER))
    for name in ("same", "moved", "gone"):
        write(study, f"metrics/figures/{name}.png", name)
    study.run("git", "init", "-q", "-b", "main")
    study.run("git", "config", "user.email", "a@example.org")
    study.run("git", "config", "user.name", "a")
    study.run("dvc", "init", "-q")
    study.repro()
    study.commit()
    return study


@pytest.fixture
def change(base, tmp_path) -> Study:
    """A copy of the base with its data, to change."""
    return Study(shutil.copytree(base.folder, tmp_path / "change"))


def write(study: Study, path: str, text: str) -> None:
    (study.folder / path).parent.mkdir(parents=True, exist_ok=True)
    (study.folder / path).write_text(text)


def bare(study: Study, folder) -> Study:
    """A clone, which has no data and no cache."""
    study.run("git", "clone", "-q", ".", str(folder))
    return Study(folder)


def comment(study: Study, *arguments: str, status=0, **environment: str) -> str:
    environment = {"GITHUB_REPOSITORY": "", "PYTHONPATH": str(ROOT), **environment}
    command = (sys.executable, "-m", "transfer", "review", *arguments)
    return study.run(*command, status=status, **environment)


def test_a_change_that_was_run(base, change, tmp_path):
    answer = json.loads(json.dumps(ANSWER))
    answer["rows"]["cells"]["r18-0.001-frozen"] |= {"accuracy": 0.75}
    answer["rows"]["cells"]["r18-0.001-finetuned"] |= {"accuracy": 0.95, "baseline": 0.35}
    answer["chosen"]["cells"] = 0.9
    answer["setting"]["cells"] = "r18-0.001-finetuned-pretrained"
    answer["trained"]["device"] = "cpu (AVX512, 4 threads)"
    write(change, "answer.json", json.dumps(answer))
    write(change, "params.yaml", "lr: 0.01\n")
    write(change, "metrics/figures/moved.png", "elsewhere")
    write(change, "metrics/figures/new|1.png", "new")
    (change.folder / "metrics/figures/gone.png").unlink()
    change.repro()
    change.commit()
    server = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "o/r"}
    clone = bare(change, tmp_path / "clone")
    text = comment(clone, "HEAD~1", "--check", **server)
    assert text.startswith(page.MARK + "\n")
    assert "`dvc.yaml`: dvc.lock is in step" in text
    assert "`never/dvc.yaml`: not run yet" in text
    assert "2 of 3 rows changed; beyond noise 1 accuracies rose and 1 fell" in text
    trained = "**trained on `cpu (AVX2, 2 threads)` → `cpu (AVX512, 4 threads)`**"
    assert f"1 accuracies rose and 1 fell; {trained}\n" in text
    assert lines(text, "`cells`") == [
        "| `cells` | `r18-0.001-frozen-pretrained` 0.7500 "
        "| `r18-0.001-finetuned-pretrained` 0.9000 |",
        "| `cells` | `r18-0.001-finetuned` | 0.8000 → 0.9500<br>**+0.150** [0.079, 0.223] "
        "| 0.5000 → 0.3500<br>**-0.150** [-0.253, -0.042] |",
        "| `cells` | `r18-0.001-frozen` | 0.7000 → 0.7500<br>+0.050 [-0.048, 0.146] | 0.5000 |",
    ]
    assert lines(text, "`params.yaml`") == ["| `params.yaml` | `lr` | `0.001` | `0.01` |"]
    assert "figures: 3 changed" in text and "same.png" not in text
    before, after = (clone.run("git", "rev-parse", c).strip() for c in ("HEAD~1", "HEAD"))
    raw = "(https://github.com/o/r/raw/{}/metrics/figures/{}.png)"
    assert re.findall(r"!\[[a-z]+\](\(.*?\))", text) == [
        raw.format(before, "gone"),
        *(raw.format(before, "moved"), raw.format(after, "moved")),
        raw.format(after, "new%7C1"),
    ]
    assert clone.run("git", "status", "--porcelain") == ""


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {start}")]


def test_a_change_that_was_not_run(change, tmp_path):
    write(change, "raw.txt", "other")
    write(change, "params.yaml", "lr: 0.01\n")
    (change.folder / "metrics/summary.json").unlink()
    change.commit()
    clone = bare(change, tmp_path / "clone")
    said = comment(clone, "HEAD~1", "--check", "--output", "comment.md", status=1)
    assert said == (
        "error: the dvc.lock of dvc.yaml is out of step; run `dvc repro` and commit what it makes\n"
    )
    text = (clone.folder / "comment.md").read_text()
    # DVC itself stops at the first stage whose data are not here, which is `pack`.
    assert "**dvc.lock is out of step.** `dvc repro` would run `pack`, `tables`\n" in text
    assert "| `cells` | `r18-0.0001-frozen` | 0.6000 → – | 0.5000 → – |" in text


def test_what_builds_on_a_stage():
    graph = 'strict digraph {\n"a";\n"a" -> "b";\n"b" -> "c";\n"a" -> "c";\n"x" -> "c";\n}\n'
    assert following(graph, {"a"}) == {"b", "c"}
    assert following(graph, {"a", "b"}) == {"c"}
    assert following(graph, set()) == set()
    assert preceding(graph, {"c"}) == {"a", "b", "x"}
    assert preceding(graph, {"b", "c"}) == {"a", "x"}


def test_an_unknown_base_is_one_line(base):
    said = comment(base, "nowhere", status=1)
    assert said == "error: nowhere: no such commit here; fetch it, or name another\n"


def test_a_broken_pipeline_is_one_line(change):
    write(change, "never/dvc.yaml", NEVER_RUN.replace("cmd", "comand"))
    said = comment(change, "HEAD", status=1)
    assert re.fullmatch(r"error: '.*dvc.yaml' validation failed.*\n", said)


def test_sixty_four_rows_and_figures_fit_a_comment():
    metrics = {"metrics/summary.json": summary(rows=64)}
    url = "https://github.com/" + "o" * 39 + "/" + "r" * 50 + "/raw/" + "0" * 40 + "/"
    path = "sample/metrics/figures/disagreements-arrows_bolts-{}.png"
    pictures = [
        page.Picture(path.format(i), "changed", url + path.format(i), url + path.format(i))
        for i in range(64)
    ]
    text = page.write("main", [page.Lock("dvc.yaml", [])], metrics, {}, pictures)
    assert len(text) < page.LIMIT and "left out" not in text
    assert text.count("| `ants_bees` |") == text.count("<details>") == 64
    longer = page.write("main", [], metrics, {}, pictures * 5)
    left = int(re.search(r"\n(\d+) more figures left out", longer)[1])
    assert len(longer) <= page.LIMIT and longer.count("<details>") == 64 * 5 - left
    params = {"params.yaml": {f"a.{i}": {"old": None, "new": "x" * 500} for i in range(2000)}}
    full = page.write("main", [], {"metrics/summary.json": summary(rows=2000)}, params, pictures)
    assert len(full) <= page.LIMIT
    assert all(f"more {kind} left out" in full for kind in ("rows", "settings", "figures"))


def summary(rows: int) -> page.Entries:
    """As DVC says it, every row changed."""
    values = {
        f"rows.ants_bees.resnet50-{i}-finetuned.{metric}": {"old": 0.5, "new": 0.875, "diff": 0.375}
        for i in range(rows)
        for metric in page.METRICS
    }
    return values | {"rows.ants_bees.test_images": {"old": 153, "new": 153, "diff": 0}}


def test_what_did_not_change_is_counted():
    entries = {"rows.a.r18-0.001-frozen.accuracy": {"old": 0.5, "new": 0.5, "diff": 0}}
    entries |= {
        "chosen.a": {"old": 0.5, "new": 0.5, "diff": 0},
        "chosen.b": {"old": 0.5, "new": 0.75, "diff": 0.25},
        "chosen.c": {"old": None, "new": 0.25, "diff": None},
        "setting.b": {"old": "r18-0.001-frozen", "new": "r18-0.001-frozen"},
        "trained.device": {"old": "cpu", "new": "cpu"},
        "trained.packages": {"old": "torch 2", "new": "torch 2"},
    }
    text = page.write("main", [], {"metrics/summary.json": entries}, {}, [])
    assert text.splitlines()[3:] == [
        "- `metrics/summary.json`: 0 of 1 rows changed; both trained on `cpu`, with `torch 2`",
        "- settings: none changed",
        "- figures: none changed",
        "",
        "#### Recommended setting, `metrics/summary.json`",
        "",
        "| data set | before | after |",
        "| --- | --- | --- |",
        "| `b` | `r18-0.001-frozen` 0.5000 | `r18-0.001-frozen` 0.7500 |",
        "| `c` | – – | – 0.2500 |",
    ]


def test_without_both_numbers_of_images_a_change_has_no_interval():
    """As where the base is of before the summary had them."""
    entries = summary(rows=1) | {"rows.ants_bees.test_images": {"old": None, "new": 153}}
    text = page.write("main", [], {"metrics/summary.json": entries}, {}, [])
    assert "0.5000 → 0.8750<br>+0.375 †" in text
    assert page.UNKNOWN in text and "beyond noise" not in text


def test_values_cannot_break_the_table():
    odd = {"old": "a|b`c\nd @someone", "new": ""}
    text = page.write("main", [], {}, {"params.yaml": {"x": odd}}, [])
    assert '| `params.yaml` | `x` | `a\\|b\'c d @someone` | `""` |' in text


def test_many_stages_of_a_kind_are_counted():
    stages = [f"train@{i}" for i in range(32)] + ["tables"]
    assert page.names(stages) == "`train` (32), `tables`"


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((0, 10, 0, 20), (-0.1611, 0.2775)),
        ((10, 10, 0, 10), (0.6075, 1.0)),
    ],
)
def test_the_interval_is_newcombes(counts, expected):
    """Statistics in Medicine 17 (1998), Table II, method 10."""
    first, n_first, second, n_second = counts
    found = newcombe(first / n_first, n_first, second / n_second, n_second)
    assert (found.low, found.high) == pytest.approx(expected, abs=5e-5)


def test_the_linter_of_the_hooks_is_the_pinned_one():
    config = YAML(typ="safe").load(ROOT / ".pre-commit-config.yaml")
    ruff = next(repo["rev"] for repo in config["repos"] if "ruff" in repo["repo"])
    assert f"\nruff=={ruff.removeprefix('v')}\n" in (ROOT / "requirements.txt").read_text()
