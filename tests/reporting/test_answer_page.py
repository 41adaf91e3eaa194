"""Laws of the page of an answer: it says what the answer says, in a browser and on paper, and runs nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browsing import PAYLOADS, has_run, requests, visit
from head_ct import write

from models.common.folders import Work
from models.common.labels import LABELS
from models.inference.answer import Answer
from models.inference.answering import Court, answer_study, open_court
from models.inference.judging import Check
from models.inference.operating import Point, Range
from models.preprocessing.geometry import ORIENTATION
from models.preprocessing.given import find_given
from models.preprocessing.own_studies import find_studies
from models.preprocessing.pseudonyms import Pseudonyms
from models.reporting.answer_page import percent, render_answer, sentence
from models.reporting.figures import plot_along_z, plot_answer
from models.reporting.key_slices import KeySlice, key_slices


class Made:
    """An answer with what a page is made of."""

    def __init__(self, folder: Path, court: Court, *series) -> None:
        given = find_given([write(folder / "data", *series)], ())
        (study,) = find_studies(given, Pseudonyms(b"5e" * 16), jobs=1)[0]
        self.work, self.court = Work(folder / "scratch"), court
        self.answer: Answer = answer_study(study, court, self.work)
        self.keys: list[KeySlice] = key_slices(self.answer, court, self.work)

    def write(self, file: Path, answer: Answer | None = None) -> Path:
        text = render_answer(answer or self.answer, self.keys, self.work, "python models/predict.py PATH")
        file.write_text(text, encoding="utf-8")
        return file


@pytest.fixture(scope="module")
def made(run_folder, heads, tmp_path_factory) -> Made:
    court = open_court([run_folder], "cpu", "none", synthetic=True)
    return Made(tmp_path_factory.mktemp("made"), court, heads[0])


@pytest.fixture(scope="module")
def pages(made, run_folder, heads, tmp_path_factory) -> list[Path]:
    """That of an answer, of a refusal, and one with payloads in every text that can reach a page."""
    folder = tmp_path_factory.mktemp("pages")
    refused = Made(folder / "refused", made.court, heads[0].some(slice(15, None)))
    texts, columns = " ".join(PAYLOADS), ["series_id", "why", "kernel", "states"]
    hostile = replace(
        made.answer,
        study=texts,
        checks=[Check(text, "warning", text) for text in PAYLOADS],
        notes=list(PAYLOADS),
        series=pd.concat([made.answer.series.assign(**dict.fromkeys(columns, text)) for text in PAYLOADS]),
    )
    return [
        made.write(folder / "answered.html"),
        refused.write(folder / "refused.html"),
        made.write(folder / "hostile.html", hostile),
    ]


def test_the_page_is_one_file_that_says_what_the_answer_says(made, pages):
    text = pages[0].read_text()
    assert sentence(made.answer) in text
    assert text.count("data:image/jpeg") == 3 * len(made.keys) + 2 * len(made.answer.slices)
    assert all(label in text for label in LABELS)
    assert all(check.name in text for check in made.answer.checks)
    assert text.count("not a medical device") >= 2
    assert "nobody was scanned" in text
    assert "https://" not in text
    refusal = pages[1].read_text()
    assert "This study cannot be judged." in refusal
    assert "brain over" in refusal


@pytest.mark.parametrize("drawn", [True, False])
def test_how_often_a_network_was_right_on_drawings_is_not_told_of_people(drawn, made, tmp_path):
    share = Range(0.9, 0.8, 0.95)
    folds = [fold._replace(record=fold.record._replace(ran={"synthetic": drawn})) for fold in made.answer.folds]
    points = {name: Point(0.3, share, share, 43, 20) for name in ("sensitivity", "specificity")}
    answer = replace(made.answer, folds=folds, points=points, synthetic=False)
    assert f"of 43 {'drawn ' if drawn else ''}patients with hemorrhage it found" in sentence(answer)
    text = " ".join(made.write(tmp_path / "page.html", answer).read_text().split())
    assert ("These patients are drawings of make_phantom.py: nobody was scanned" in text) == drawn


def test_the_same_answer_gives_the_same_bytes(made, pages, tmp_path):
    assert made.write(tmp_path / "again.html").read_bytes() == pages[0].read_bytes()


@pytest.mark.parametrize(
    ("known", "start", "end"),
    [
        ({}, "feet", "head"),
        ({"image_orientation_4": 0.0, "image_orientation_5": -1.0}, "front", "back"),
        (dict.fromkeys(ORIENTATION, np.nan), "first slice", "last slice"),
        ({"z": np.nan}, "first slice", "last slice"),
    ],
    ids=["axial", "coronal", "orientation is not told", "positions are not told"],
)
def test_page_and_figure_name_the_ends_of_a_series_where_they_are_known(known, start, end, made, tmp_path):
    answer = replace(made.answer, slices=made.answer.slices.assign(**known))
    text = made.write(tmp_path / "page.html", answer).read_text()
    assert text.count(f"From the {start} to the {end}") == 2
    assert ("feet" in text) == (start == "feet")
    for figure in (
        plot_answer(answer.slices, answer.probability, [0]),
        plot_along_z(answer.slices, answer.probability, ""),
    ):
        label = figure.axes[0].get_xlabel()
        assert (label.split("  ")[0], label.split("  ")[-1]) == (start, end)


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows_and_no_request_leaves_the_page(browser, pages, width):
    for file in pages:
        visit(browser, file, width)
        assert requests(browser) == [file.as_uri()]
        assert browser.get_log("browser") == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        images = browser.execute_script("return [...document.images].map(image => [image.naturalWidth, image.alt])")
        assert all(pixels > 0 and alt for pixels, alt in images)


def test_payloads_are_text_wherever_they_stand(browser, pages):
    visit(browser, pages[2])
    assert not has_run(browser)
    active = "script, iframe, object, embed, base, form, svg, details, a[href^=javascript], [onload], [onfocus]"
    assert browser.execute_script("return document.querySelectorAll(arguments[0]).length", active) == 0
    text = browser.execute_script("return document.body.textContent")
    assert [payload for payload in PAYLOADS if payload.replace("\x00", "") not in text] == []


def test_on_paper_no_table_is_cut(browser, pages):
    visit(browser, pages[0], 760)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    wide = """return [...document.querySelectorAll('table')].filter(table =>
        table.getBoundingClientRect().right > innerWidth + 1).map(table => table.className)"""
    cut = browser.execute_script(wide)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert cut == []


@pytest.mark.parametrize(("share", "text"), [(0.004, "less than 1 %"), (0.516, "52 %"), (0.996, "more than 99 %")])
def test_a_share_claims_no_more_than_is_known(share, text):
    assert percent(share) == text.replace(" %", "\N{NO-BREAK SPACE}%")  # of which no line ends between them
