"""Names that become keys, paths or lines: anything that a table, a folder or a zip can say.

`FUZZ=500 python -m pytest tests/test_names.py` tries that many sets of class names.
"""

import csv
import io
import os
import shutil
import sys
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from dvc.repo import Repo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

import stages.pack
import stages.params
import stages.split
from tests.conftest import ROOT
from tests.study import in_process, results
from tests.test_split import image
from transfer import cli, params
from transfer.cli import UserError
from transfer.images import archive, layout, packed
from transfer.images.audit import Audit
from transfer.images.names import CLASSES, Classes, parted
from transfer.own import enter
from transfer.own import settings as own
from transfer.runs import Run
from transfer.training import run_cache

yaml = YAML(typ="safe")
EACH = 6
"""Images of a class."""
BOTH = [
    *("no", "1e3", "~", "null", "0x1F", "1_000", "2024-01-01", "001", "=", "<<", "true"),
    *("a: b", "a #b", "{}", "[x]", "'q'", '"q"', "&a", "*a", "!t", "|", "> x", "@x", "`x`", "? x"),
    *("- x", "-dash", "--help", "dots...", "comma, x", "${x}", "{{ x }}", "%s", "<form id=data>"),
    *(
        "é",
        "漢字",
        "🙂",
        "tab\tx",
        "new\nline",
        "esc\x1b[31m",
        "line\u2028",
        "next\x85x",
        "x\ufeff",
    ),
    *("x" * 60, "Squamous cell carcinoma, moderately differentiated, with keratinization"),
    "many words " * 11,
]
IN_TABLES = [*BOTH, "n/a", "1/2", "/abs/x", "../../x", "..", ".", "a\\b", "c:/x", "x" * 300, "/"]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=120)
SETS = st.lists(st.sampled_from(IN_TABLES) | TEXTS, min_size=2, max_size=4, unique=True)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A study of images of one's own, of which there are none yet, and a DVC repository."""
    folder = tmp_path_factory.mktemp("names") / "above/study"
    (folder / "data/code").mkdir(parents=True)
    for stage in ("params", "split", "pack"):
        (folder / "data/code" / stage).write_text(stage)
    shutil.copy(ROOT / "dvc.yaml", folder)
    given = YAML().load(ROOT / "params.yaml")
    given["pack"].update(resize=40, size=32)
    given["weights"] = {"miniresnet10": {"source": "data/raw/x.pth", "sha256": "0" * 64}}
    given["grid"].update(backbone=["miniresnet10"], freezing=["frozen"])
    YAML().dump(given, folder / "before.yaml")
    Repo.init(str(folder), no_scm=True)
    return folder


def source(study: Path, labels: list[str], table: bool) -> Path:
    """A folder of images with these labels, in a table or as folders."""
    folder, lines = study / "data/raw/own", []
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(EACH * len(labels)):
        label = labels[number % len(labels)]
        path = Path("images" if table else label, f"{number}.png")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(image(number))
        lines.append((path.name, label))
    if table:
        with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file", "label"), *lines])
    return folder


def entered(study: Path, folder: Path) -> tuple[str, list[str]]:
    """What `own` does but for measuring times: the key and what it says. Raises UserError."""
    before = (study / "before.yaml").read_text()
    with archive.opened(folder) as opened:
        found = layout.read(opened)
    name = own.key(folder, params.load(text=before))
    relative = folder.relative_to(study)
    text = own.put(before, params.load(text=before), name, relative, found, 0, "crop", 1, False)
    text = text.replace("resplit: true", "resplit: false")  # folds miss classes this small
    params.load(text=text)
    (study / "params.yaml").write_text(text, encoding="utf-8")
    return name, found


def through(study: Path, labels: list[str], table: bool, there: Path | None = None) -> str:
    """From own to pack, of images with these labels, or of those there; the data set's key. Raises
    UserError."""
    name, found = entered(study, there or source(study, labels, table))
    said = []
    for main, *words in (
        (stages.params.main,),
        (stages.split.main, name),
        (stages.pack.main, name),
    ):
        status, out, err = in_process(study, main, *words)
        assert status == 0, err
        said += (out + err).splitlines()
    with pytest.MonkeyPatch.context() as patch:
        out = io.StringIO()
        patch.setattr(sys, "stdout", out)
        enter.say(*enter.described(Path("x"), found))
        enter.check(Path("x"), found)
    assert all(line.isprintable() for line in said + out.getvalue().split("\n"))
    data = packed.load(study / "data/packed" / name)
    assert data.classes == sorted(found.folders["classes"] if table else labels)
    counts = []
    for part in (getattr(data, part) for part in packed.PARTS):
        counts.append(part.count(data.classes))
        names = zip(part.names, part.label, strict=True)
        assert all(parted(name)[0] == data.classes[label] for name, label in names)
    assert np.sum(counts, axis=0).tolist() == [EACH] * len(data.classes) and np.min(counts) > 0
    assert {path.name for path in study.parent.parent.iterdir()} == {"above"}
    assert {path.name for path in study.parent.iterdir()} == {"study"}
    return name


def in_step(study: Path, name: str) -> None:
    """The stages that ran are as dvc.lock says, which any YAML reader reads."""
    made = ("params", f"split@{name}", f"pack@{name}")
    with chdir(study), Repo() as repo:
        for stage in made:
            repo.commit(stage, force=True)
    with chdir(study), Repo() as repo:
        assert repo.status(list(made)) == {}
    yaml.load((study / "dvc.lock").read_text())


def is_folder(name: str) -> bool:
    return not set("/\\\0") & set(name) and name[0] != "." and name[1:2] != ":"


@pytest.mark.parametrize("table", [True, False])
def test_class_names_of_every_kind_are_classes_like_any_other(study, table):
    labels = [name for name in IN_TABLES if table or is_folder(name) and len(name) < 200]
    in_step(study, through(study, labels, table))


def tried(study: Path, labels: list[str], dvc: bool) -> None:
    table = not all(map(is_folder, labels))
    try:
        name = through(study, labels, table)
    except OSError:  # a name that is no folder's here
        return
    except UserError as error:
        assert "\n" not in str(error)
        return
    if dvc:
        in_step(study, name)


FUZZ = int(os.environ.get("FUZZ", 10))
drawn = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(drawn, max_examples=FUZZ)
@given(labels=SETS)
def test_drawn_class_names(study, labels):
    tried(study, labels, dvc=False)


@pytest.mark.release
@settings(drawn, max_examples=5 * FUZZ)
@given(labels=SETS)
def test_drawn_class_names_and_dvc(study, labels):
    tried(study, labels, dvc=True)


def test_names_that_are_not_utf_8_are_escaped_or_refused_in_one_line(study):
    folder = source(study, ["ant", "bee"], table=False)
    for number in range(2):
        os.rename(folder / f"ant/{2 * number}.png", folder / f"ant/\udce9{number}.png")
    (folder / "ant/\udcff.txt").write_text("")
    name = through(study, ["ant", "bee"], table=False, there=folder)
    report = Audit.read(study / f"metrics/data/{name}.json")
    assert r"ant/\udcff.txt" in report.left_out["other"].names
    os.rename(folder / "bee", folder / "be\udce9")
    with pytest.raises(UserError, match=r"class name 'be\\udce9' is empty or no text"):
        entered(study, folder)
    os.rename(folder, folder.with_name("o\udcffn"))
    shutil.copy(study / "before.yaml", study / "params.yaml")
    status, _, err = in_process(study, enter.main, "data/raw/o\udcffn")
    assert (status, err) == (1, "error: 'data/raw/o\\udcffn' is not UTF-8; rename it\n")


def test_a_terminal_that_knows_ascii_alone_shows_every_name():
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "stdout", out)
        cli.run(lambda: cli.say("é\x1b[2J\udce9", "漢\nx"))
    out.flush()
    assert ended.value.code == 0
    assert out.buffer.getvalue() == b"\\xe9\\x1b[2J\\udce9\n\\u6f22\\nx\n"


def test_keys_fit_in_the_names_of_files_and_stay_distinct(study):
    before = params.load(study / "before.yaml")
    long = [study / f"data/raw/{'flowers ' * 27}{end}.zip" for end in "ab"]
    first = own.key(long[0], before)
    entry = before.datasets["ants_bees"].model_copy(update={"source": str(long[0])})
    after = before.model_copy(update={"datasets": {first: entry}})
    keys = [own.key(path, after) for path in [*long, study / "data/raw/花.zip", study / "🙂.zip"]]
    assert keys[0] == first and len(set(keys)) == 4
    assert all(0 < len(key) <= params.LONGEST for key in keys) and keys[2:] == ["hua", "images"]
    axes = dict.fromkeys(("dataset", "backbone", "recipe"), "x" * params.LONGEST)
    run = Run(**axes, images=10**9, lr=-1.2345678901234567e-308, freezing="finetuned",
              init="pretrained", seed=2**31 - 1)  # fmt: skip
    for path in (
        run_cache.kept(run, "0" * 64),
        run.time,
        run.folder,
        Path(f"train@{run.name}.log"),
    ):
        assert len(f".{path.name}.part") <= 255


def test_pack_refuses_what_is_not_the_division_that_params_has(study):
    name = through(study, ["ant", "bee", "n/a"], table=True)
    split = study / "data/split" / name
    for path in (split / "train/2").iterdir():
        path.unlink()
    packed_before = (study / f"data/packed/{name}/index.json").read_bytes()
    status, _, err = in_process(study, stages.pack.main, name)
    assert status == 1 and "no training image of class 'n/a'" in err and err.count("\n") == 1
    Classes(names=["ant", "bee"]).write(split / CLASSES)
    status, _, err = in_process(study, stages.pack.main, name)
    assert status == 1 and "other classes than params.yaml has" in err and err.count("\n") == 1
    assert (study / f"data/packed/{name}/index.json").read_bytes() == packed_before


def test_a_folder_that_is_called_as_any_folder_is_refused(study):
    with pytest.raises(UserError, match=r"\* stands for any folder; rename it"):
        entered(study, source(study, ["*", "bee"], table=False))


def test_an_edit_of_one_data_sets_classes_or_title_touches_only_what_reads_it(study):
    through(study, ["ant", "bee"], table=False)
    root = study / "data/settings"
    before = results(root)

    def differing(old: str, new: str) -> set[str]:
        text = (study / "params.yaml").read_text()
        assert old in text
        (study / "params.yaml").write_text(text.replace(old, new, 1))
        assert in_process(study, stages.params.main)[0] == 0
        (study / "params.yaml").write_text(text)
        return {name for name, content in results(root).items() if content != before[name]}

    assert differing("title: own", "title: other") == {"datasets.json"}
    assert differing("ant: ant", "wasp: ant") == {"split/own.json"}
    pipeline = yaml.load((study / "dvc.yaml").read_text())["stages"].values()
    named = [key for stage in pipeline for key in stage.get("do", stage).get("params", ())]
    assert not [key for key in named if key.startswith("datasets")]
