"""Laws of answers: of any input the right series is taken or the right refusal made; nobody is alarmed for nothing."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from head_ct import Series, write
from inputs import CASES, REFUSED, WARNED, Case, abdomen

from models.common.folders import Work
from models.inference.answer import Answer
from models.inference.answering import Court, answer_study
from models.inference.judging import check_series, missing_slices, reasons_of
from models.phantom.dicom import write_phantom
from models.preprocessing.given import find_given
from models.preprocessing.measures import Measures, measure
from models.preprocessing.metadata import slice_table
from models.preprocessing.own_studies import find_studies, read_study
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.pseudonyms import Pseudonyms
from models.preprocessing.store import Series as Stored
from models.preprocessing.store import compress_slice, write_series
from models.preprocessing.tables import UNREADABLE, read_slices

PSEUDONYMS = Pseudonyms(b"5e" * 16)


def answers_to(paths: list[Path], court: Court, scratch: Path) -> list[Answer]:
    studies, _ = find_studies(find_given(paths, ()), PSEUDONYMS, jobs=1)
    return [answer_study(study, court, Work(scratch / study.key)) for study in studies]


def answer(case: Case, heads: tuple[Series, Series], court: Court, folder: Path) -> list[Answer]:
    named = case.write(folder / "data", *heads)
    return answers_to([named] if isinstance(named, Path) else list(named), court, folder / "scratch")


def key_of(taken: str, heads: tuple[Series, Series]) -> str:
    """The key of a series that a test calls so; a volume is called by its path."""
    if not taken:
        return ""
    return PSEUDONYMS.hash(taken if ".nii" in taken else replace(heads[0], name=taken).uid)


@pytest.mark.parametrize("name", CASES)
def test_the_right_series_is_taken_or_the_right_refusal_made(name, heads, court, tmp_path):
    case = CASES[name]
    found = answer(case, heads, court, tmp_path)
    due = {key_of(one.taken, heads): one for one in case.due}
    assert {one.taken for one in found} == set(due)
    for one in found:
        right, reasons = due[one.taken], "; ".join(reasons_of(one.checks))
        assert (one.verdict, reasons) == (right.verdict, reasons)
        assert right.reason in reasons
        assert (one.probability is None) == (right.verdict == REFUSED)
        assert set(one.series["taken"]) <= {"yes", "no"}
        assert (one.series["why"] != "").all()


def test_one_head_gets_one_answer_in_whatever_it_comes(heads, court, tmp_path):
    """DICOM, without preamble, in frames, prone and as NIfTI: to 1e-6."""
    names = ("one", "no preamble", "one file of many frames", "12 bits without a sign", "prone", "NIfTI")
    found = [answer(CASES[name], heads, court, tmp_path / name)[0] for name in names]
    for one in found[1:]:
        assert np.abs(one.probability - found[0].probability).max() <= 1e-6
        assert np.abs(one.study_probability - found[0].study_probability).max() <= 1e-6


def test_a_series_that_is_asked_for_is_answered_whatever_it_is(heads, court, tmp_path):
    series = replace(abdomen(heads[0]), name="trunk")
    asking = replace(court, series=(PSEUDONYMS.hash(series.uid),))
    (found,) = answers_to([write(tmp_path / "data", heads[0], series)], asking, tmp_path / "scratch")
    assert found.taken == asking.series[0]
    assert found.verdict == WARNED
    why = dict(zip(found.series["series_id"], found.series["why"], strict=True))
    assert why == {
        found.taken: "asked for with --series",
        key_of("soft", heads): "another series is asked for with --series",
    }


def test_where_the_best_series_cannot_be_judged_the_next_one_is(heads, court, tmp_path):
    """Nothing in its headers tells that the first one is a trunk."""
    trunk = replace(abdomen(heads[0]), name="trunk")
    more = replace(
        trunk, hounsfield=np.repeat(trunk.hounsfield, 2, axis=0), positions=np.repeat(trunk.positions, 2, axis=0)
    )
    (found,) = answers_to([write(tmp_path / "data", heads[0], more)], court, tmp_path / "scratch")
    assert found.taken == key_of("soft", heads)


def test_slices_that_cannot_be_read_have_the_mean_of_their_neighbours_and_are_told(heads, court, tmp_path):
    data = write(tmp_path / "data", heads[0])
    for path in sorted(data.rglob("IM*"))[5:7]:
        path.write_bytes(path.read_bytes()[:-4000])
    (found,) = answers_to([data], court, tmp_path / "scratch")
    assert found.verdict == WARNED
    count = len(heads[0].hounsfield)
    assert f"2 of {count} cannot be read" in "; ".join(reasons_of(found.checks))
    assert len(found.slices) == count
    assert np.isfinite(found.probability).all()


def alarms_of(work: Work, table: pd.DataFrame, size: int) -> list[str]:
    """The reasons of checks that are not passed, of a stored series."""
    series = Stored(work.series(size, table["series_id"].iloc[0]))
    side = table[["rows", "columns"]].max(axis=1)
    measures = measure(
        series,
        float((table["pixel_spacing_0"] * side / size).median()),
        float(table["gap_above"].median()),
        int(side.iloc[0]),
    )
    facts = {"plane": "axial", "kernel": "soft", "contrast": "no", "states": "", "why": ""}
    return reasons_of(check_series(table, facts, measures, asked=False))


def test_nobody_is_alarmed_by_clean_drawings(prepared):
    """Of 30 studies; those with a clip in the brain are no false alarms."""
    alarms = []
    for split in ("train", "test"):
        for _, table in read_slices(prepared, split).groupby("series_id", sort=False):
            alarms += [reason for reason in alarms_of(prepared, table, 64) if "metal" not in reason]
    assert alarms == []


@pytest.mark.torture
def test_nobody_is_alarmed_by_two_hundred_clean_drawings(tmp_path):
    write_phantom(tmp_path / "data", studies=199, test_studies=1, image_size=96, seed=77, jobs=-1)
    prepare(PrepareOptions(data=tmp_path / "data", work=tmp_path, image_size=(512,)))
    work, alarms, count = Work(tmp_path), [], 0
    for _, table in read_slices(work, "train").groupby("series_id", sort=False):
        alarms += [reason for reason in alarms_of(work, table, 512) if "metal" not in reason]
        count += 1
    assert len(alarms) <= 0.02 * count, alarms


def test_nobody_is_alarmed_by_real_studies(real_sample, tmp_path):
    """But for the metal that one of them has within the skull, of 26,452 HU."""
    studies, _ = find_studies(find_given([real_sample], ()), PSEUDONYMS, jobs=1)
    assert len(studies) == 9
    reasons = []
    for study in studies:
        read = read_study(study, Work(tmp_path / study.key), (512,), ())
        for notes in read.notes:
            table, _ = slice_table([notes])
            reasons += alarms_of(Work(tmp_path / study.key), table, 512)
    assert [reason.partition(":")[0] for reason in reasons] == ["metal"]


# ---- gaps ----


@pytest.mark.parametrize(
    ("gaps", "lacking"),
    [
        ([5, 5, 5, 5, 5], 0),
        ([5, 5, 10, 5, 5], 1),
        ([5, 5, 15, 5, 5], 2),
        ([5, 10, 5, 15, 5], 3),
        ([5, 10, 10, 5, 5], 2),
        ([3, 3, 3, 5, 5, 5], 0),  # thin slices through the base
        ([1.1, 1.1, 5.4, 5.4, 5.4, 5.4], 0),
        ([5, 0, 5, 0, 5], 0),  # two slices at a place
        ([5], 0),
        ([], 0),
    ],
)
def test_slices_lack_where_a_gap_is_wider_than_those_on_both_sides(gaps, lacking):
    assert missing_slices(np.array([*gaps, np.nan], float))[0] == lacking
    assert missing_slices(np.array([*gaps[::-1], np.nan], float))[0] == lacking


@pytest.mark.parametrize(("unread", "verdict"), [(1, "warning"), (8, "warning"), (9, "refused"), (10, "refused")])
def test_a_series_of_which_more_than_a_fifth_cannot_be_read_is_refused(unread, verdict):
    places = np.arange(40)
    chunks = np.where(places < unread, UNREADABLE, places)
    table = pd.DataFrame({"chunk": chunks, "z": 5.0 * places, "gap_above": 5.0, "rows": 512})
    facts = {"plane": "axial", "kernel": "soft", "contrast": "no", "states": "", "why": ""}
    measures = Measures(40, 40, 1400, 130, 0.1, 0.4, -1000, 32, 4, 1, 0, 0, 2, 230)
    checks = {check.name: check for check in check_series(table, facts, measures, asked=False)}
    assert checks["readable"] == ("readable", verdict, f"{unread} of 40 cannot be read")


# ---- noise ----


@pytest.mark.parametrize(("noise", "blur", "low", "high"), [(4, 1.0, 0.0, 1.5), (4, 0, 1.75, 2.4), (25, 0, 1.75, 2.4)])
def test_noise_and_its_sharpness_are_measured_as_they_are(noise, blur, low, high, tmp_path):
    """Sharpness is 2 of white noise, and less the more a kernel smooths."""
    rng = np.random.default_rng(0)
    rows, columns = (np.indices((256, 256)) - 128) / 128
    ring = np.hypot(rows, columns)
    skull = np.where(ring < 0.7, 32.0, np.where(ring < 0.76, 900.0, -1000.0))
    grain = rng.normal(0, 1, skull.shape)
    grain = cv2.GaussianBlur(grain, (0, 0), blur) if blur else grain
    slices = [np.rint(skull + noise * grain / grain.std()).astype(np.int16)] * 12
    write_series(tmp_path / "one.slices", [compress_slice(one) for one in slices], (256, 256), {})
    found = measure(Stored(tmp_path / "one.slices"), 0.9, 5.0, 256)
    assert found.heads == 12
    assert found.noise == pytest.approx(noise, rel=0.4)
    assert low < found.sharpness < high


# ---- fields of view ----


@pytest.mark.parametrize("spacing", [0.000488, 1e-9, 4.88e5, -1.0, np.inf], ids=str)
def test_what_cannot_be_the_width_of_a_pixel_is_told_and_costs_nothing(spacing, heads, tmp_path):
    """As where metres are meant: shapes are found as in a head of usual size."""
    slices = [np.clip(one, -1000, 2000).astype(np.int16) for one in heads[0].hounsfield]
    side = len(slices[0])
    write_series(tmp_path / "one.slices", [compress_slice(one) for one in slices], (side, side), {})
    store = Stored(tmp_path / "one.slices")
    usual, found = measure(store, np.nan, 5.0, side), measure(store, spacing, 5.0, side)
    assert found._replace(width=0) == usual._replace(width=0)
    assert found.width == pytest.approx(spacing * side)
