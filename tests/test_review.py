"""The comment on a pull request, on a real git and DVC repository that trains nothing."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import chdir

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT
from tests.study import Study
from transfer.commands import preceding
from transfer.evidence.stats import newcombe
from transfer.review import lock, page

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
MARK = "<!-- what-this-changes -->"
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
    put(study, "dvc.yaml", PIPELINE)
    put(study, "never/dvc.yaml", NEVER_RUN)
    put(study, "params.yaml", "lr: 0.001\n")
    put(study, "raw.txt", "raw")
    put(study, "answer.json", json.dumps(ANSWER))
    for name in ("same", "moved", "gone"):
        put(study, f"metrics/figures/{name}.png", name)
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


def put(study: Study, path: str, text: str) -> None:
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
    put(change, "answer.json", json.dumps(answer))
    put(change, "params.yaml", "lr: 0.01\n")
    put(change, "metrics/figures/moved.png", "elsewhere")
    put(change, "metrics/figures/new|1.png", "new")
    (change.folder / "metrics/figures/gone.png").unlink()
    change.repro()
    change.commit()
    server = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "o/r"}
    clone = bare(change, tmp_path / "clone")
    text = comment(clone, "HEAD~1", "--check", **server)
    assert text.startswith(MARK + "\n")
    assert "`dvc.yaml`: dvc.lock is up to date" in text
    assert "`never/dvc.yaml`: not run yet" in text
    assert "- `metrics/summary.json`: 2 of 3 rows of accuracies changed.\n" in text
    assert "Of those accuracies, 1 rose and 1 fell significantly.\n" in text
    assert "recommended setting or its accuracy changed for 1 of 1 data set.\n" in text
    assert "**The two sides were trained with different devices, threads or packages**" in text
    assert lines(text, "device") == [
        "| device and threads | `cpu (AVX2, 2 threads)` | `cpu (AVX512, 4 threads)` |"
    ]
    assert lines(text, "packages") == ["| packages | `torch 2.15.0` | `torch 2.15.0` |"]
    assert lines(text, "`cells`") == [
        "| `cells` | `r18-0.001-frozen-pretrained` 0.7500 "
        "| `r18-0.001-finetuned-pretrained` 0.9000 |",
        "| `cells` | `r18-0.001-finetuned` | 0.8000 → 0.9500<br>**+0.150** [0.079, 0.223] "
        "| 0.5000 → 0.3500<br>**-0.150** [-0.253, -0.042] |",
        "| `cells` | `r18-0.001-frozen` | 0.7000 → 0.7500<br>+0.050 [-0.048, 0.146] | 0.5000 |",
    ]
    assert lines(text, "`params.yaml`") == ["| `params.yaml` | `lr` | `0.001` | `0.01` |"]
    assert "- 3 figures changed.\n" in text and "same.png" not in text
    before, after = (clone.run("git", "rev-parse", c).strip() for c in ("HEAD~1", "HEAD"))
    raw = "(https://github.com/o/r/raw/{}/metrics/figures/{}.png)"
    assert re.findall(r"!\[[a-z]+\](\(.*?\))", text) == [
        raw.format(before, "gone"),
        *(raw.format(before, "moved"), raw.format(after, "moved")),
        raw.format(after, "new%7C1"),
    ]
    assert clone.run("git", "status", "--porcelain") == ""


def lines(text: str, init: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {init}")]


def test_a_change_that_was_not_run(change, tmp_path):
    put(change, "raw.txt", "other")
    put(change, "params.yaml", "lr: 0.01\n")
    (change.folder / "metrics/summary.json").unlink()
    change.commit()
    clone = bare(change, tmp_path / "clone")
    said = comment(clone, "HEAD~1", "--check", "--output", "comment.md", status=1)
    assert said == (
        "error: the dvc.lock of dvc.yaml is out of date; run `dvc repro` and commit the results\n"
    )
    text = (clone.folder / "comment.md").read_text()
    # DVC itself stops at the first stage whose data are not here, which is `pack`.
    assert "**dvc.lock is out of date.** `dvc repro` would run 2 stages, `pack`, `tables`, " in text
    assert "| `cells` | `r18-0.0001-frozen` | 0.6000 → – | 0.5000 → – |" in text


def test_a_lock_that_was_half_redone_is_out_of_step(change, tmp_path):
    clone = bare(change, tmp_path / "clone")
    recorded = YAML(typ="safe").load(clone.folder / "dvc.lock")
    recorded["stages"]["pack"]["outs"][0]["md5"] = "0" * 32
    YAML().dump(recorded, clone.folder / "dvc.lock")
    with chdir(clone.folder):
        assert lock.compare("dvc.yaml").stale == ["tables"]


def setting(key: str, value) -> Callable[[Study], None]:
    return lambda study: study.change(key, value)


def longer(path: str, text: str) -> Callable[[Study], None]:
    return lambda study: put(study, path, (study.folder / path).read_text() + text)


COMMENT = longer("params.yaml", "# Why.\n")
RATE = "another learning rate"
EDITS = {
    "comments": [COMMENT, longer("stages/params.py", "\n# Why.\n")],
    "margin": [setting("evidence.margin", 0.02)],
    RATE: [setting("grid.lr", [0.001, 0.0003, 0.01]), COMMENT],
    "a title": [setting("datasets.one.title", "another")],
    "a size": [setting("pack.size", 36)],
    "epochs": [setting("train.epochs", 2)],
    "a setting that changes nothing": [setting("train.keep_features", False)],
    "code": [longer("transfer/evidence/stats.py", "\n_EDITED = 1\n"), COMMENT],
    "code of the stage params": [longer("transfer/training/preflight.py", "\n_EDITED = 1\n")],
    "a page": [longer("metrics/report.md", "by hand\n")],
}
COSTED = {"evidence", "report", "recommend"}
FOLLOWING = {"a size": COSTED, "epochs": COSTED}
"""By the computation that runs take, which is known once `params` has run."""
LATE = [pytest.param(name, marks=pytest.mark.release) for name in EDITS if name != RATE]


@pytest.mark.parametrize("edit", [RATE, *LATE])
def test_what_it_says_that_would_run_runs(finished, tmp_path, edit):
    study = finished.copy(tmp_path / "study")
    for one in EDITS[edit]:
        one(study)
    study.run("git", "commit", "-qam", "x")
    clone = bare(study, tmp_path / "clone")
    with chdir(clone.folder):
        found = lock.compare("dvc.yaml")
    with chdir(study.folder):
        assert lock.compare("dvc.yaml") == found, "with data and without"
    ran = study.repro("code", "params")
    ran |= json.loads(study.run("dvc", "status", "--json")).keys()
    assert ran - set(found.running) == FOLLOWING.get(edit, set())
    assert set(found.running) <= ran
    assert bool(found.stale) == (edit not in ("comments", "a setting that changes nothing"))


def test_a_lock_in_step_says_what_would_only_be_noted():
    text = write(locks=[page.Lock("sample/dvc.yaml", [], ["code", "params"])])
    only = "`cd sample && dvc repro` would run only `code`, `params`, which takes seconds and"
    assert f"is up to date with code and settings. {only} changes dvc.lock but no result." in text
    assert "would run" not in write(locks=[page.Lock("dvc.yaml", [])])


def test_what_a_stage_builds_on():
    graph = 'strict digraph {\n"a";\n"a" -> "b";\n"b" -> "c";\n"a" -> "c";\n"x" -> "c";\n}\n'
    assert preceding(graph, {"c"}) == {"a", "b", "x"}
    assert preceding(graph, {"b", "c"}) == {"a", "x"}


def test_an_unknown_base_is_one_line(base):
    said = comment(base, "nowhere", status=1)
    assert said == "error: nowhere: no such commit here; fetch it, or name another\n"


def test_a_broken_pipeline_is_one_line(change):
    put(change, "never/dvc.yaml", NEVER_RUN.replace("cmd", "comand"))
    said = comment(change, "HEAD", status=1)
    assert re.fullmatch(r"error: '.*dvc.yaml' validation failed.*\n", said)


def write(
    metrics: page.Diff | None = None,
    params: page.Diff | None = None,
    pictures: list[page.Picture] | None = None,
    locks: list[page.Lock] | None = None,
    raw: str | None = None,
) -> str:
    """The comment on what is given."""
    commits = page.Sides("0" * 40, "f" * 40)
    return page.write(commits, raw, locks or [], metrics or {}, params or {}, pictures or [])


def test_sixty_four_rows_and_figures_fit_a_comment():
    metrics = {"metrics/summary.json": summary(rows=64)}
    raw = "https://github.com/" + "o" * 39 + "/" + "r" * 50 + "/raw"
    path = "sample/metrics/figures/disagreements-arrows_bolts-{}.png"
    pictures = [page.Picture(path.format(i), "M") for i in range(64)]
    text = write(metrics, pictures=pictures, locks=[page.Lock("dvc.yaml", [])], raw=raw)
    assert len(text) < page.LIMIT and "left out" not in text
    assert text.count("| `ants_bees` |") == text.count("<details>") == 64
    longer = write(metrics, pictures=pictures * 5, raw=raw)
    left = int(re.search(r"\n(\d+) more figures left out", longer)[1])
    assert len(longer) <= page.LIMIT and longer.count("<details>") == 64 * 5 - left
    params = {"params.yaml": {f"a.{i}": page.Sides(None, "x" * 500) for i in range(2000)}}
    full = write({"metrics/summary.json": summary(rows=2000)}, params, pictures * 5, raw=raw)
    assert page.LIMIT - 1000 < len(full) <= page.LIMIT
    assert all(f"more {kind} left out" in full for kind in ("rows", "settings", "figures"))
    # However much there is of one kind, there is room for some of each.
    assert min(full.count(of) for of in ("| `ants_bees` |", "| `params.yaml` |", "<details>")) > 32


def summary(rows: int) -> dict[str, page.Sides]:
    """Every row changed."""
    values = {
        f"rows.ants_bees.resnet50-{i}-finetuned.{metric}": page.Sides(0.5, 0.875)
        for i in range(rows)
        for metric in ("accuracy", "baseline")
    }
    return values | {"rows.ants_bees.test_images": page.Sides(153, 153)}


def test_what_did_not_change_is_counted():
    entries = {
        "rows.a.r18-0.001-frozen.accuracy": page.Sides(0.5, 0.5),
        "chosen.a": page.Sides(0.5, 0.5),
        "chosen.b": page.Sides(0.5, 0.75),
        "chosen.c": page.Sides(None, 0.25),
        "setting.b": page.Sides("r18-0.001-frozen", "r18-0.001-frozen"),
        "trained.device": page.Sides("cpu", "cpu"),
        "trained.packages": page.Sides("torch 2", "torch 2"),
    }
    assert write({"metrics/summary.json": entries}).splitlines() == [
        MARK,
        "### What this changes, compared with `0000000000`",
        "",
        "- `metrics/summary.json`: 0 of 1 row of accuracies changed.",
        "  - The recommended setting or its accuracy changed for 2 of 3 data sets.",
        "  - Both sides were trained on `cpu`, with `torch 2`.",
        "- 0 settings changed.",
        "- 0 figures changed.",
        "",
        "#### Recommended setting and its accuracy, `metrics/summary.json`",
        "",
        "| data set | before | after |",
        "| --- | --- | --- |",
        "| `b` | `r18-0.001-frozen` 0.5000 | `r18-0.001-frozen` 0.7500 |",
        "| `c` | – – | – 0.2500 |",
    ]


def test_without_both_numbers_of_images_a_change_has_no_interval():
    """As where the base is of before the summary had them."""
    entries = summary(rows=1) | {"rows.ants_bees.test_images": page.Sides(None, 153)}
    text = write({"metrics/summary.json": entries})
    assert "0.5000 → 0.8750<br>+0.375 †" in text
    assert "\n†: No interval, because" in text and "fell significantly" not in text
    assert "†" not in write({"metrics/summary.json": summary(rows=1)})


def test_rows_that_only_one_side_has_lead_to_what_both_have():
    entries = {
        "rows.a.r18-0.001-frozen.accuracy": page.Sides(0.5, 0.5),
        "rows.a.r18-0.0001-frozen.accuracy": page.Sides(0.5, None),
        "rows.a.r18-0.0003-frozen.accuracy": page.Sides(None, 0.5),
        # From random weights, on one side.
        "rows.a.r18-0.001-frozen.baseline": page.Sides(None, 0.5),
    }
    chosen = {"chosen.a": page.Sides(0.5, 0.75), "chosen.b": page.Sides(None, 0.5)}
    text = write({"metrics/summary.json": entries | chosen})
    assert "  - 3 of these rows have an accuracy on one side only, because the grid" in text
    assert "`chosen.<data set>` in `dvc metrics diff` compares" in text
    # As where a study runs for the first time.
    assert "one side only" not in write({"s": entries | {"chosen.b": page.Sides(None, 0.5)}})
    assert "one side only" not in write({"s": summary(rows=2) | chosen})


def test_a_side_whose_runs_were_not_all_trained_alike_is_told():
    mixed = "2 with torch 2; 1 with torch 3"
    text = write({"s": {"trained.mixed": page.Sides(None, mixed)}})
    assert f"**After the change, not all runs were trained in the same way**: `{mixed}`." in text
    assert "Before the change" not in text
    assert "trained in the same way" not in write({"s": summary(rows=2)})


def test_values_cannot_break_the_table():
    text = write(params={"params.yaml": {"x": page.Sides("a|b`c\nd @someone", "")}})
    assert '| `params.yaml` | `x` | <code>a&#124;b&#96;c d @someone</code> | `""` |' in text


@pytest.mark.parametrize("raw", [None, "https://github.com/o/r/raw"])
def test_nothing_that_others_wrote_is_more_than_code(raw):
    """Whichever place of the page it comes to: no mention, no HTML, no line of its own."""
    odd = "`@someone`\n\n# <img src=x> | [x](y) ![z](w) / z"
    sides = page.Sides(odd, odd + " ")
    row = odd.replace("\n", " ")
    metrics = {
        f"rows.{row}.{row}.accuracy": page.Sides(0.5, 0.75),
        f"chosen.{odd}": page.Sides(0.5, 0.75),
        f"setting.{odd}": sides,
        "trained.device": sides,
        "trained.packages": sides,
        "trained.mixed": sides,
    }
    alike = {f"trained.{kind}": page.Sides(odd, odd) for kind in ("device", "packages")}
    locks = [page.Lock(odd, stale, idle) for stale in (None, [], [odd]) for idle in ([], [odd])]
    studies = {odd: metrics, odd + "alike": alike}
    text = write(studies, {odd: {odd: sides}}, [page.Picture(odd, "M")], locks, raw)
    rest = re.sub(r"`[^`\n]*`|<code>[^<\n]*</code>", "", text)
    rest = re.sub(r"!\[\w+\]\(https://github.com/o/r/raw/\w+/[\w%/.-]*\)", "", rest)
    assert text.count("@someone") > 20 and "@" not in rest and "<img" not in rest
    assert "](" not in rest and "\n# " not in rest


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


def test_the_workflow_looks_for_the_mark_of_its_comment():
    workflow = (ROOT / ".github/workflows/comment.yaml").read_text()
    assert f'startswith("{MARK}")' in workflow


def test_github_folds_what_dvc_makes_and_git_does_not_merge_it():
    """Of the pipeline's outputs those that git keeps, in the root and in the sample."""
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].values()
    entries = [
        out for stage in stages for kind in ("outs", "metrics") for out in stage.get(kind, [])
    ]
    kept = [
        path for out in entries if isinstance(out, dict) for path in out if "cache" in out[path]
    ]
    made = [f"{folder}{name}" for folder in ("", "sample/") for name in ("dvc.lock", *kept)]
    made += [f"{path}/gains.png" for path in made if path.endswith("figures")]
    assert "sample/metrics/report.md" in made and "metrics/figures/gains.png" in made
    written = ["params.yaml", "dvc.yaml", "metrics/README.md", "docs/method.md", "sample/dvc.yaml"]
    said = Study(ROOT).run(
        "git", "check-attr", "linguist-generated", "merge", "--", *made, *written
    )
    of = dict(line.rsplit(": ", 1) for line in said.splitlines())
    assert {(of[f"{path}: linguist-generated"], of[f"{path}: merge"]) for path in made} == {
        ("set", "unset")
    }
    assert not {of[f"{path}: linguist-generated"] for path in written} & {"set"}
    assert not {of[f"{path}: merge"] for path in written} & {"unset"}
