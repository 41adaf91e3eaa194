"""Laws of the report: true to the numbers, the same bytes each time, and harmless in a real browser."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browsing import HIT, PAYLOADS, has_run, requests, visit
from report_pages import Page, copy_of, predict, scored, write_run
from scipy.special import expit
from scipy.stats import binomtest

from models.common.errors import InputError
from models.common.files import hash_file, write_parquet
from models.common.folders import Work
from models.common.labels import ANY, LABELS
from models.inference.blend_record import BlendRecord, inputs_of, write_record
from models.inference.runs import Run, load_out_of_fold
from models.inference.smoothed_run import SmoothOptions, smooth_run
from models.preprocessing.tables import UNREADABLE, read_slices
from models.report import ReportOptions, report
from models.reporting import page
from models.reporting.mistakes import SHOWN, nearest_store, worst_mistakes
from models.reporting.subgroups import group_slices, score_subgroups
from models.reporting.subject import Scored, Subject, join_truth
from models.reporting.tables import NO_BLEED, calibrate, confuse_types, score_labels
from models.train_small import CONFIG
from models.training.run_record import save_config

REPOSITORY = Path(__file__).parent.parent.parent
OF_A_FOLDER = [payload for payload in PAYLOADS if "/" not in payload and "\x00" not in payload]


@pytest.fixture(scope="module")
def hostile(prepared, metadata, tmp_path_factory) -> list[Path]:
    """The pages of a run and of a blend with payloads in every text that can reach a page."""
    texts = [PAYLOADS[number % len(PAYLOADS)] for number in range(len(metadata))]
    header = dict.fromkeys(
        ["bits_stored", "pixel_representation", "rescale_intercept", "study_id", "patient_id"], texts
    )
    images = [f"{text} {number}" for number, text in enumerate(texts)]
    work = copy_of(prepared, tmp_path_factory.mktemp("hostile"), metadata.assign(image_id=images, **header))
    slices, name = read_slices(work, "train"), " ".join(OF_A_FOLDER[:4])
    write_run(work, name, slices, dict(zip(PAYLOADS, PAYLOADS, strict=True)))
    blend = predict(slices).reset_index()
    blend.attrs = dict(zip(PAYLOADS, PAYLOADS, strict=True))
    write_parquet(work.blend / "valid.parquet", blend)
    report(ReportOptions(name, work=work.root))
    report(ReportOptions(work=work.root))
    return [work.root / f"report_{name}.html", work.root / "report_blend.html"]


class LateBrowser:
    """One whose notes of a page come one by one: of the page itself, and of a picture that the policy has blocked."""

    def __init__(self) -> None:
        self.notes = [
            ("Network.requestWillBeSent", {"requestId": "1", "request": {"url": "file:///page.html"}}),
            ("Network.loadingFinished", {"requestId": "1"}),
            ("Page.loadEventFired", {}),
            ("Network.requestWillBeSent", {"requestId": "2", "request": {"url": "http://127.0.0.1:9/x"}}),
            ("Network.loadingFailed", {"requestId": "2", "blockedReason": "csp"}),
        ]
        self.batches = [[0, 1], [], [3], [], [2, 4]]

    def get_log(self, _: str) -> list[dict[str, str]]:
        some = [self.notes[place] for place in self.batches.pop(0)]
        return [{"message": json.dumps({"message": {"method": name, "params": values}})} for name, values in some]


def test_a_request_is_judged_when_its_end_is_noted_however_late_that_is():
    assert requests(LateBrowser()) == ["file:///page.html"]


def test_the_page_opens_without_a_request_or_an_error(browser, plain):
    visit(browser, plain)
    assert requests(browser) == [plain.as_uri()]
    assert browser.get_log("browser") == []
    assert "not a medical device" in browser.find_element("tag name", "body").text


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows_and_every_image_shows(browser, plain, hostile, width):
    for file in (plain, *hostile):
        visit(browser, file, width)
        assert browser.execute_script("return innerWidth") == width
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        beyond = """return [...document.querySelectorAll('body *')].filter(element =>
            !element.closest('.scroll') && element.getBoundingClientRect().right > innerWidth + 1).length"""
        assert browser.execute_script(beyond) == 0
        images = browser.execute_script("return [...document.images].map(image => [image.naturalWidth, image.alt])")
        assert len(images) > 9 + 2 * SHOWN
        assert all(pixels > 0 and alt for pixels, alt in images)


def test_the_dark_page_has_dark_curves_and_slices_as_they_are(browser, plain):
    visit(browser, plain)
    style = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    seen = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        paper = browser.execute_script(style, "body", "backgroundColor")
        filters = [browser.execute_script(style, name, "filter") for name in (".drawn img", ".views img")]
        seen[scheme] = (sum(map(int, re.findall(r"\d+", paper)[:3])) > 384, ["invert" in filter for filter in filters])
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert seen == {"light": (True, [False, False]), "dark": (False, [True, False])}


def test_on_a_phone_a_case_shows_all_labels_and_what_is_said_of_them(browser, plain):
    visit(browser, plain, 390)
    cells = """return [...document.querySelectorAll('.case tr > *')].map(cell => {
        const box = cell.getBoundingClientRect();
        return [cell.textContent.trim(), box.left >= 0 && box.right <= innerWidth] })"""
    found = browser.execute_script(cells)
    assert {text for text, _ in found} > set(LABELS)
    assert all(is_seen for _, is_seen in found)


def test_on_paper_no_table_is_cut(browser, plain):
    visit(browser, plain, 760)  # A4 without its margins
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    wide = """return [...document.querySelectorAll('table')].filter(table =>
        table.getBoundingClientRect().right > innerWidth + 1).map(table => table.className)"""
    cut = browser.execute_script(wide)
    shown = browser.execute_script("return getComputedStyle(document.querySelector('nav')).display")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert (cut, shown) == ([], "none")


def test_the_page_says_how_large_its_pictures_are(plain):
    assert "64 \N{MULTIPLICATION SIGN} 64 pixels, drawn larger than they are" in plain.read_text()


def test_payloads_are_text_wherever_they_stand(browser, hostile):
    assert len(set(PAYLOADS)) == 20
    for file in hostile:
        visit(browser, file)
        assert not has_run(browser)
        assert requests(browser) == [file.as_uri()]
        active = "script, iframe, object, embed, base, form, svg, details, a[href^=javascript], [onload], [onfocus]"
        assert browser.execute_script("return document.querySelectorAll(arguments[0]).length", active) == 0
        assert browser.execute_script("return document.querySelectorAll('meta[http-equiv]').length") == 1
        text = browser.execute_script("return document.body.textContent")
        shown = [payload.replace("\x00", "") for payload in PAYLOADS]  # HTML drops NUL
        assert [payload for payload in shown if payload not in text] == []


def test_the_policy_stops_what_is_inserted_into_the_page(browser, plain, tmp_path):
    inserted = f"<script>{HIT}</script><img src=x onerror={HIT}><img src='http://127.0.0.1:9/x'></main>"
    policy = '<meta http-equiv="Content-Security-Policy"'
    text = plain.read_text().replace("</main>", inserted)
    for name, html, runs in (("with", text, False), ("without", text.replace(policy, "<meta name="), True)):
        file = tmp_path / f"{name}.html"
        file.write_text(html)
        visit(browser, file)
        assert has_run(browser) == runs
        assert ("http://127.0.0.1:9/x" in requests(browser)) == runs


def test_the_page_names_images_and_nobody(plain, metadata):
    text = plain.read_text()
    assert metadata["image_id"].map(text.count).sum() >= 2 * SHOWN
    for name in ("patient_id", "study_id", "series_id"):
        assert [value for value in metadata[name].unique() if value in text] == []


def test_the_same_input_gives_the_same_bytes(plain, tmp_path):
    report(ReportOptions("small", tmp_path / "again.html", plain.parent))
    assert (tmp_path / "again.html").read_bytes() == plain.read_bytes()


def test_every_file_of_the_page_is_installed_with_the_package():
    packaged = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    beside = {file.name for file in Path(page.__file__).parent.iterdir() if file.suffix in (".html", ".css")}
    assert set(packaged["models.reporting"]) == beside


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "absent",
            r"no finished fold in .*absent; train one with: python models/train_small\.py --name absent",
        ),
        ("blend", r"no .*blend/valid\.parquet; make it with: python models/blend\.py --work "),
        ("../runs/small", r"\.\./runs/small is not the name of a run"),
    ],
)
def test_what_cannot_be_reported_on_is_named_with_its_repair(prepared, name, message):
    with pytest.raises(InputError, match=message):
        report(ReportOptions(name, work=prepared.root))


def test_a_prediction_without_a_label_is_an_error(metadata):
    predictions = predict(metadata)
    unlabelled = metadata.assign(any=metadata["any"].where(metadata.index > 0))
    with pytest.raises(InputError, match=f"lacks 1 of .* first {metadata['image_id'][0]}"):
        join_truth(Subject("small", [0], predictions, {}), unlabelled)


def test_a_few_slices_of_one_class_without_a_store_make_a_page(metadata, tmp_path):
    few = metadata[metadata["any"] == 0].groupby("study_id").head(1).head(3).reset_index(drop=True)
    html = page.render(Subject("few", [0], predict(few), {}), few, Work(tmp_path))
    assert not re.search(r"\bnan\b", re.sub(r'"data:[^"]+"', "", html))
    assert "python models/prepare.py --image-size 256" in html
    assert "few patients" in html
    assert "<td>\N{EN DASH}</td>" in html


def answers(patients: int, slices: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, what is said of them, whose they are, and the share that a patient like that has of them."""
    generator = np.random.default_rng(seed)
    whose = np.repeat(np.arange(patients), slices)
    logits = generator.normal(-2, 1, patients)[whose] + generator.normal(0, 2, len(whose))
    unknown = generator.normal(0, 1, patients)[whose]  # what no network sees of a patient
    target = (generator.random(len(whose)) < expit(logits + unknown)).astype(float)
    points, weights = np.polynomial.hermite_e.hermegauss(30)
    return target, expit(logits), whose, expit(logits[:, None] + points) @ (weights / weights.sum())


def test_calibration_counts_every_slice_and_of_single_slices_its_intervals_are_wilsons():
    generator = np.random.default_rng(0)
    probability = np.append(generator.random(300), [0, 1])
    target = (generator.random(302) < probability).astype(float)
    points = calibrate(target, probability, np.arange(302))
    assert points["slices"].sum() == len(target)
    assert (points["observed"] * points["slices"]).sum() == pytest.approx(target.sum())
    for row in points.itertuples():
        interval = binomtest(round(row.observed * row.slices), row.slices).proportion_ci(method="wilson")
        assert (row.low, row.high) == pytest.approx(tuple(interval), abs=0.01)


def test_intervals_of_calibration_are_of_patients():
    target, probability, patients, _ = answers(40, 1)
    alone = calibrate(target, probability, patients)
    often = calibrate(np.tile(target, 30), np.tile(probability, 30), np.tile(patients, 30))  # the same slice again
    pd.testing.assert_frame_equal(alone[["low", "high"]], often[["low", "high"]])
    nobody = calibrate(0 * target, 0 * probability, patients).iloc[0]
    assert nobody["low"] == pytest.approx(0)
    assert nobody["high"] == pytest.approx(binomtest(0, 40).proportion_ci(method="wilson").high, abs=1e-4)
    assert calibrate(target, probability, 0 * patients)[["low", "high"]].isna().all(axis=None)


@pytest.mark.parametrize(("patients", "slices"), [(40, 34), (150, 34), (60, 1)])
def test_intervals_of_calibration_hold_the_truth(patients, slices):
    held = []
    for seed in range(40):
        target, probability, whose, truth = answers(patients, slices, seed)
        points = calibrate(target, probability, whose)
        edges = np.quantile(probability, np.linspace(0, 1, 11)[1:-1])
        of_tenth = pd.Series(truth).groupby(np.searchsorted(edges, probability)).mean()
        held += [*((points["low"] <= of_tenth) & (of_tenth <= points["high"]))]
    assert 0.92 <= np.mean(held) <= 0.98


def test_types_are_confused_over_slices_that_show_one_type_alone():
    target = np.zeros((4, 6))
    target[0, [0, ANY]] = target[1, [0, ANY]] = target[2, [0, 1, ANY]] = 1
    probability = np.arange(24).reshape(4, 6) / 24
    table = confuse_types(Scored(pd.DataFrame(index=range(4)), target, probability))
    assert table["slices"].tolist() == [2, 0, 0, 0, 0, 1]
    np.testing.assert_allclose(table.loc["epidural", list(LABELS)], probability[:2].mean(axis=0))
    np.testing.assert_allclose(table.loc[NO_BLEED, list(LABELS)], probability[3])
    assert table.loc["subdural", list(LABELS)].isna().all()


def test_a_label_of_one_class_has_no_rank(metadata):
    table = score_labels(scored(metadata.assign(epidural=0.0)))
    assert table.loc["epidural", ["AUC", "average precision"]].isna().all()
    assert 0.5 < table.loc["any", "AUC"] < 1
    assert metadata["any"].mean() < table.loc["any", "average precision"] < 1


def test_every_slice_is_in_one_group_of_each_kind(metadata):
    for table in score_subgroups(scored(metadata), metadata).values():
        assert table["slices"].sum() == len(metadata)
        assert table["positives"].sum() == metadata["any"].sum()


def test_slices_are_grouped_by_what_their_headers_tell():
    table = pd.DataFrame(
        {
            "image_id": ["a", "b", "c", "d", "e"],
            "series_id": ["s", "s", "s", "s", "alone"],
            "study_id": ["s", "s", "s", "s", "alone"],
            "bits_stored": [12.0, 12.0, 16.0, np.nan, 12.0],
            "pixel_representation": [0.0, 0.0, 1.0, 1.0, 0.0],
            "rescale_intercept": [-1024.0, -1024.0, 0.0, 0.0, -1024.0],
            "z": [0.0, 2.0, 5.0, 9.0, 4.0],
            "gap_below": [np.nan, 2.0, 3.0, 4.0, np.nan],
        }
    )
    groups = group_slices(table).astype(str)
    unsigned = "12 bits unsigned, intercept -1024"
    assert groups["Scanner family, by pixel format"].tolist() == [
        unsigned,
        unsigned,
        "16 bits signed, intercept 0",
        "unknown",
        unsigned,
    ]
    assert groups["Distance between slices"].tolist() == ["2 to below 4 mm"] * 4 + ["unknown"]
    assert groups["Position in the head"].tolist() == [
        "lower third",
        "lower third",
        "middle third",
        "upper third",
        "unknown",
    ]
    assert groups["Slices of the study"].tolist() == ["fewer than 25"] * 5


def test_the_worst_mistakes_are_the_worst_and_of_different_studies(prepared, metadata):
    rows = scored(metadata)
    probability, truth = rows.probability[:, ANY], rows.target[:, ANY] == 1
    shown = worst_mistakes(rows, metadata, prepared)
    study = metadata.set_index("image_id")["study_id"]
    for cases, label in ((shown["false negatives"], 1), (shown["false positives"], 0)):
        assert len({study[case.image_id] for case in cases}) == len(cases) == SHOWN
        assert {case.target[ANY] for case in cases} == {label}
    assert shown["false negatives"][0].probability[ANY] == probability[truth].min()
    assert shown["false positives"][0].probability[ANY] == probability[~truth].max()


def test_a_mistake_stands_between_its_neighbours_and_says_which_are_not_there(prepared, metadata):
    series = metadata[metadata["series_id"] == metadata["series_id"][0]]
    unreadable = series.assign(chunk=[UNREADABLE, *series["chunk"][1:]])
    rows = Scored(series[1:2], np.ones((1, 6)), np.zeros((1, 6)))
    (case,) = worst_mistakes(rows, unreadable, prepared)["false negatives"]
    assert (case.place, case.length) == (2, len(series))
    assert [picture.reason for picture in case.pictures] == ["cannot be read", "", "", "", ""]
    (case,) = worst_mistakes(rows, series[1:2], prepared)["false negatives"]
    assert [picture.image is None for picture in case.pictures] == [True, False, True, False, False]
    assert case.pictures[0].reason == "end of the series"


def test_the_store_nearest_to_the_size_of_a_picture_is_shown(tmp_path):
    work = Work(tmp_path)
    assert nearest_store(work) is None
    for size in (64, 224, 512):
        work.slices(size).mkdir(parents=True)
    work.cache.joinpath("slices_old").mkdir()
    assert nearest_store(work) == 224


def test_the_page_of_drawings_says_so_and_that_of_people_does_not(prepared, metadata, plain, tmp_path):
    work = copy_of(prepared, tmp_path, metadata)
    shutil.copy(prepared.prepared, work.prepared)  # the mark with which a phantom's cache is born
    write_run(work, "small", metadata)
    report(ReportOptions("small", work=work.root))
    drawn = (work.root / "report_small.html").read_text()
    assert "nobody was scanned" in drawn
    assert "<title>small: hemorrhage on synthetic head CT</title>" in drawn
    assert "nobody was scanned" not in plain.read_text()


def test_the_page_says_of_which_slices_by_what_and_what_was_chosen_on_them(prepared, metadata, tmp_path):
    work = Work(tmp_path, stage=2)
    write_parquet(work.metadata("train"), metadata)
    write_run(work, "small", metadata)
    for name in ("small", "small_smoothed"):
        if name == "small_smoothed":
            smooth_run(SmoothOptions("small", work=work.root, stage=2))
        report(ReportOptions(name, work=work.root, stage=2, heat=False))
        text = (tmp_path / f"report_{name}.html").read_text()
        page = Page(text)
        assert "out-of-fold predictions · stage 2</p>" in text
        chosen = text.partition("Chosen on these very slices")[2].partition("</p>")[0]
        assert "the epoch whose weights are kept, of folds 0 and 1" in chosen
        slices, own = dict(page.tables["Slices"]), dict(page.tables["This page"])
        assert (slices["split"], slices["stage"]) == ("train, out-of-fold", "2")
        assert slices["each is the mean of"] == "one view"  # nothing is noted
        assert own["command"] == f"python models/report.py {name} --no-heat --stage 2"
        assert re.fullmatch(r"[0-9a-f]{40}\+?|not known", own["commit"])
        assert str(tmp_path) not in text
        told = dict(page.tables["Folds"])["fold 0"]
        assert ("smoothed less before: weighted log loss " in told) == (name == "small_smoothed")


def test_what_a_run_was_carried_out_on_stands_on_its_page(prepared, metadata, tmp_path):
    work = copy_of(prepared, tmp_path, metadata)
    write_run(work, "small", metadata)
    for fold in (0, 1):
        ran = {"commit": f"{fold:040d}", "command": "python models/train_small.py", "synthetic": True}
        save_config(work.run("small", fold), CONFIG, fold, {"best_epoch": 3}, stage=1, ran=ran)
    report(ReportOptions("small", work=work.root, heat=False))
    page = Page((tmp_path / "report_small.html").read_text())
    carried_out = dict(page.tables["Carried out"])
    assert carried_out["commit"] == f"{0:040d} | {1:040d}"
    assert (carried_out["command"], carried_out["synthetic"]) == ("python models/train_small.py", "True")
    assert "weights of epoch 3, trained on stage 1, sha256 " in dict(page.tables["Folds"])["fold 0"]


def test_the_page_of_a_blend_tells_what_blend_json_tells(prepared, metadata, tmp_path):
    work = copy_of(prepared, tmp_path, metadata)
    for name in ("a", "b"):
        write_run(work, name, metadata)
    write_parquet(work.blend / "valid.parquet", predict(metadata).reset_index())  # without a note
    fitted = {"kind": "Blend", "weights": {"a": 0.25, "b": 0.75}, "spaces": "logit", "calibrations": None}
    record = BlendRecord(
        asked="best",
        ways=dict.fromkeys(LABELS, "fitted") | {"any": "best_single"},
        fitted=dict.fromkeys(LABELS, fitted),
        nested={label: {"equal": 0.2, "fitted": 0.12345} for label in LABELS},
        files_sha256={"valid.parquet": hash_file(work.blend / "valid.parquet")},
        command="python models/blend.py a b",
        **inputs_of(work, load_runs_without_test(work, "a", "b")),
    )
    write_record(work, record)
    report(ReportOptions(work=work.root))
    text = (tmp_path / "report_blend.html").read_text()
    page = Page(text)
    told, ways = dict(page.tables["Blend"]), dict(page.tables["Way of each label"])
    assert told["way"] == "a way for each label, chosen for each label by nested scores"
    assert (told["runs"], told["command"]) == ("a, folds 0 and 1; b, folds 0 and 1", record.command)
    said = "log loss on unseen patients: equal 0.2000, fitted 0.1235; weights: a 0.25, b 0.75; spaces: logit"
    assert ways["epidural"].startswith(f"fitted; {said}")
    assert ways["any"].startswith("b alone; ")
    hashes = dict(page.tables["sha256 of what it was made of"])
    assert hashes["a/fold0/valid.parquet"] == hash_file(work.prediction("a", 0, "valid"))
    chosen = text.partition("Chosen on these very slices")[2].partition("</p>")[0]
    assert "the way" not in chosen  # a patient is predicted by ways that were chosen without that patient
    assert "the epoch whose weights are kept, of folds 0 and 1 of b" in chosen
    assert "a, b have predicted the same" in text
    write_parquet(work.prediction("a", 0, "valid"), predict(metadata[::2], 9).reset_index())
    with pytest.raises(InputError, match=r"blend was made from another a/fold0/valid.parquet; delete .*blend, then: "):
        report(ReportOptions(work=work.root))


def load_runs_without_test(work: Work, *names: str) -> list[Run]:
    return [Run(name, [0, 1], table, table[:0]) for name, table in load_out_of_fold(work, names).items()]
