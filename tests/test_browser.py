"""metrics/report.html in a real browser, headless; axe-core judges what all can read and reach."""

import json
import re
import shutil
from contextlib import chdir
from typing import get_args

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from transfer import files, params
from transfer.evidence import calibration
from transfer.evidence.records import Evidence, LabelError
from transfer.evidence.scores import chosen_epoch
from transfer.images import packed
from transfer.images.audit import Audit
from transfer.pages import browser, gallery
from transfer.runs import PREDICTIONS
from transfer.templates import escape
from transfer.training import predictions

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
LIMIT = 5_000_000  # bytes of the drawn study's page
NAME = "hearts_drops"


@pytest.fixture(scope="module")
def chromium():
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(chromium):
    """Opens a file: the page, on which what it complains of or asks for is an error."""
    complaints, contexts = [], []

    def opened(path, **options):
        contexts.append(chromium.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        wanted = re.compile(rf"data:|{re.escape(path.as_uri())}")
        page.on("request", lambda r: wanted.match(r.url) or complaints.append(r.url))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture
def report(sample):
    return sample.folder / "metrics/report.html"


def test_it_shows_what_the_markdown_shows(report, visit):
    assert report.stat().st_size < LIMIT
    page = visit(report)
    predicted = page.locator("body").text_content()
    numbers = re.findall(r"[-+]?\d+\.\d{3}", report.with_suffix(".md").read_text())
    assert len(numbers) > 100 and set(numbers) <= set(re.findall(r"[-+]?\d+\.\d{3}", predicted))
    headings = re.findall(r"^##+ (.*)", report.with_suffix(".md").read_text(), re.M)
    assert set(headings) <= set(page.locator("h2, h3").all_text_contents())
    charts = [chart.bounding_box() for chart in page.locator(".chart").all()]
    assert len(charts) >= 5 and all(box["height"] > 100 for box in charts)


@pytest.fixture
def many(sample, tmp_path):
    """A page of two data sets, each with settings enough to be told apart."""
    with chdir(sample.folder):
        study, evidence = params.load(), Evidence.read("metrics/evidence.json")
        costs = files.read_json("data/settings/costs.json")
        own = browser.Part.collect(NAME, study, evidence, Audit.load(NAME), costs)
    lines = []
    for i, mean in enumerate((0.9, 0.25, 1.0, 0.5, 0.75)):
        chosen = own.lines[0].choice.chosen.model_copy(update={"mean": mean})
        choice = own.lines[0].choice.model_copy(update={"chosen": chosen, "lr": 0.1**i})
        lines.append(own.lines[0].model_copy(update={"choice": choice, "computation": 1.5 * i}))
    parts = [own.model_copy(update={"dataset": name, "lines": lines}) for name in (NAME, "other")]
    path = tmp_path / "many.html"
    path.write_text(browser.write("# A\n\nb\n\n## Answers\n\nc\n", parts, {}))
    return path


def test_tables_sort_and_settings_filter(many, visit):
    page = visit(many)
    rows = page.locator("#all tbody tr")
    for name in ("Test", "Computation"):
        heading = page.locator("#all th").filter(has_text=name)
        column = heading.evaluate("cell => cell.cellIndex")
        for down in (False, True):
            heading.locator("button").press("Enter")
            texts = [row.locator("td").nth(column).inner_text() for row in rows.all()]
            values = [float(text.split()[0]) for text in texts]
            assert values == sorted(values, reverse=down) and len(set(values)) == 5
            assert heading.get_attribute("aria-sort") == ("descending" if down else "ascending")
    page.select_option("#dataset", NAME)
    shown = [row for row in rows.all() if row.is_visible()]
    assert {row.get_attribute("data-dataset") for row in shown} == {NAME}
    assert page.locator("#panels figure:visible").count() == 1
    shown[1].locator("button").press("Enter")
    assert page.locator("#panels polyline.picked").count() == 1
    assert shown[1].locator("td").nth(1).inner_text() in page.locator("#chosen").inner_text()


def test_images_are_those_that_the_recommended_run_gets_wrong(report, visit, sample):
    page = visit(report)
    page.select_option("#whose", NAME)
    page.select_option("#kind", "wrong")
    named = page.locator("#images button span:first-of-type").all_text_contents()
    with chdir(sample.folder):
        evidence, grid = Evidence.read("metrics/evidence.json"), params.load().grid
        first = next(choice for choice in evidence.choices if choice.dataset == NAME)
        parts = predictions.load(first.run(first.init, grid.seed[0]).written(PREDICTIONS))
    wrong = ~parts["test"].right[chosen_epoch(parts, evidence.measures[NAME])]
    assert {*named} & {*parts["test"].name} == {*parts["test"].name[wrong]} and named
    page.select_option("#kind", "all")
    named = page.locator("#images button span:first-of-type").all_text_contents()
    page.locator("#images button").first.press("Enter")
    dialog = page.locator("dialog")
    assert dialog.locator("tr").count() == sum(c.dataset == NAME for c in evidence.choices)
    page.keyboard.press("ArrowRight")
    assert named[1] in dialog.inner_text()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_the_reports_links_lead_to_the_images(report, visit):
    made = browser.html(f"![Disagreements](figures/disagreements-{NAME}.png)", {})
    (target,) = re.findall('href="(.*?)"', made)
    assert target == f"#gallery/{NAME}/disagreeing"
    page = visit(report)
    page.evaluate(f"location.hash = '#gallery/{NAME}/wrong'")
    page.wait_for_function("document.querySelector('#kind').value == 'wrong'")
    assert page.input_value("#whose") == NAME


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_can_read_and_reach_it(report, visit, scheme):
    page = visit(report, color_scheme=scheme)
    page.locator("summary").first.click()
    tags = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
    found = Axe().run(page, options=tags)
    page.locator("#images button").first.click()
    in_dialog = Axe().run(page, options=tags)
    assert not found.response["violations"], found.generate_report()
    assert not in_dialog.response["violations"], in_dialog.generate_report()


def test_it_fits_a_telephone(report, visit):
    page = visit(report, viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def of(sample, room=browser.ROOM, **changed):
    """The gallery of a data set, with its evidence or audit changed."""
    with chdir(sample.folder):
        study, audit = params.load(), Audit.load(NAME)
        evidence = Evidence.read("metrics/evidence.json")
        known = {name: value for name, value in changed.items() if hasattr(evidence, name)}
        audit = audit.model_copy(update={k: v for k, v in changed.items() if k not in known})
        data = packed.load(f"data/packed/{NAME}", study.grid.seed[0])
        return gallery.collect(NAME, study, evidence.model_copy(update=known), audit, data, room)


def test_each_kind_of_image_is_told(sample, monkeypatch):
    monkeypatch.setattr(calibration, "FEWEST", 1)
    plain = of(sample)
    tested = [image.name for image in plain.images if "not a test image" not in image.note]
    one, two, three = tested[:3]
    duplicate, held = f"train/{one}", one.split("/")[0]
    label_error = LabelError(dataset=NAME, image=three, predicted=held, runs=4, confidence=0.9)
    found = of(
        sample, leaked=[(one, duplicate)], near=[(two, duplicate)], label_errors=[label_error]
    )
    by_name = {image.name: image for image in found.images}
    assert "leaked" in by_name[one].kinds and duplicate in by_name[one].note
    assert "alike" in by_name[two].kinds and "suspected" in by_name[three].kinds
    assert found.images[0].name == three and len(found.images) == len(tested) and found.left == 0
    for image in found.images:
        assert ("right" in image.kinds) == (image.predicted[0] == image.label)
        assert ("right" in image.kinds) != ("wrong" in image.kinds)
    for image in found.images:
        below = (
            found.confidence_threshold is not None
            and image.confidence[0] < 100 * found.confidence_threshold - 1
        )
        above = (
            found.confidence_threshold is None
            or image.confidence[0] > 100 * found.confidence_threshold + 1
        )
        assert below <= ("unsure" in image.kinds) <= (not above)


def test_where_not_all_fit_those_that_are_right_go_first(sample):
    whole = of(sample)
    room = sum(len(image.thumbnail) for image in whole.images) // 2
    part = of(sample, room=room)
    assert part.images == whole.images[: len(part.images)] and whole.left == 0
    gone = whole.images[len(part.images) :]
    assert part.left == sum("not a test image" not in image.note for image in gone) > 0
    assert sum(len(image.thumbnail) for image in part.images) <= room
    ranks = [min(map(get_args(gallery.Kind).index, image.kinds)) for image in whole.images]
    assert ranks == sorted(ranks) and get_args(gallery.Kind)[-1] == "right"


def test_names_cannot_become_code(sample, visit, tmp_path):
    hostile = (
        "</script><script>alert(1)</script><img src=x onerror=alert(2) name=getElementById>"
        "<form id=data action=//x><meta http-equiv=refresh content='0;url=//x'><style>*{}</style>"
    )
    with chdir(sample.folder):
        study, evidence = params.load(), Evidence.read("metrics/evidence.json")
        costs = files.read_json("data/settings/costs.json")
        part = browser.Part.collect(NAME, study, evidence, Audit.load(NAME), costs)
    images = [one.model_copy(update={"name": f"{hostile}/{i}"})
              for i, one in enumerate(part.gallery.images)]  # fmt: skip
    changed = part.gallery.model_copy(update={"images": images, "classes": [hostile, "b"]})
    part = part.model_copy(update={"title": hostile, "gallery": changed})
    path = tmp_path / "report.html"
    path.write_text(browser.write(f"# A\n\nb\n\n## Answers\n\n{escape(hostile)}\n", [part], {}))
    page = visit(path)
    assert page.locator("#report p").inner_text() == hostile
    assert hostile in page.locator("#images").inner_text()
    assert json.loads(page.locator("#data").text_content())[0]["gallery"]["classes"][0] == hostile


def test_a_chart_is_the_same_text_each_time_and_keeps_its_labels(sample):
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.plot(np.arange(9), np.sqrt(np.arange(9)), color="#1f2328")
    axes.set_title("0.0001")
    text = browser.vector(figure, "one")
    assert text == browser.vector(figure, "one") and ">0.0001<" in text
    axes.set_title('x id="a_1" #1f2328 0.123456')
    assert '>x id="a_1" #1f2328 0.123456<' in browser.vector(figure, "one")
    assert "var(--ink)" in text and not re.search(r'd="[^"]*\d\.\d{3}', text)
