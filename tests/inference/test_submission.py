"""Laws of the submission: it is whole or not written, and every run is aligned by name."""

import numpy as np
import pandas as pd
import pytest

from models.common.errors import InputError
from models.common.labels import LABELS
from models.inference.submission import describe_mismatches, write_submission
from models.preprocessing.challenge_csv import image_ids
from models.preprocessing.pseudonyms import cached_images, read_key

SLICES = [f"ID_{number:02d}" for number in range(20)]


def predictions(names=SLICES, seed: int = 0) -> pd.DataFrame:
    values = np.random.default_rng(seed).random((len(names), 6), dtype=np.float32)
    return pd.DataFrame(values, columns=list(LABELS), index=pd.Index(names, name="image_id"))


def submission_ids(names=SLICES, seed: int = 0) -> pd.Series:
    rows = [f"{image_id}_{label}" for image_id in names for label in LABELS]
    return pd.Series(rows).sample(frac=1, random_state=seed).reset_index(drop=True)


def test_a_submission_holds_exactly_the_asked_ids_in_their_order(tmp_path):
    ids = submission_ids(SLICES[:7])
    table = write_submission(tmp_path / "submission.csv", predictions(), ids, image_ids(ids))
    written = pd.read_csv(tmp_path / "submission.csv")
    assert list(written.columns) == ["ID", "Label"]
    assert list(written["ID"]) == list(table["ID"]) == list(ids)
    for name, value in zip(written["ID"], written["Label"], strict=True):
        image_id, label = name.rsplit("_", 1)
        assert value == pytest.approx(predictions().loc[image_id, label], abs=1e-7)


def test_a_submission_that_lacks_a_slice_is_not_written(tmp_path):
    ids = submission_ids()
    with pytest.raises(InputError, match=r"lacks 1 of 20 slices, first ID_03"):
        write_submission(tmp_path / "submission.csv", predictions().drop("ID_03"), ids, image_ids(ids))
    assert not (tmp_path / "submission.csv").exists()


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.5])
def test_a_submission_with_a_value_that_is_no_probability_leaves_the_old_file(tmp_path, value):
    file = tmp_path / "submission.csv"
    file.write_text("old")
    wrong = predictions()
    wrong.loc["ID_03", "subdural"] = value
    with pytest.raises(InputError, match="no probability"):
        write_submission(file, wrong, submission_ids(), image_ids(submission_ids()))
    assert file.read_text() == "old"


IMAGE_IDS = pd.Index(SLICES, name="image_id")


def test_runs_of_exactly_the_slices_that_are_asked_for_are_passed_in_silence():
    assert describe_mismatches({"b0": predictions(), "b2": predictions(seed=1)}, IMAGE_IDS) == []


@pytest.mark.parametrize(
    ("image_ids", "line"),
    [
        (SLICES[2:], "b2 lacks 2 of 20 slices, first ID_00"),
        ([*SLICES, "ID_90", "ID_91"], "b2 has 2 slices that nobody asked for, first ID_90"),
        (SLICES[::-1], "b2 has the slices in another order"),
    ],
)
def test_a_run_with_fewer_other_or_reordered_slices_is_named_with_their_count(image_ids, line):
    runs = {"b0": predictions(), "b2": predictions(image_ids)}
    assert describe_mismatches(runs, IMAGE_IDS) == [line]


def test_a_run_of_another_stage_is_refused_by_name_and_count():
    other = predictions([f"ID_{number}" for number in range(100, 130)])
    with pytest.raises(InputError, match=r"b2 has none of the 20 slices .*, but 30 others: .* --stage"):
        describe_mismatches({"b0": predictions(), "b2": other}, IMAGE_IDS)


def test_slices_that_no_run_has_are_refused_by_count():
    with pytest.raises(InputError, match=r"no run has 3 of the 20 slices .*, first ID_00"):
        describe_mismatches({"b0": predictions(SLICES[3:]), "b2": predictions(SLICES[4:])}, IMAGE_IDS)


def test_slices_of_own_files_are_found_by_the_names_that_the_cache_gives_them(tmp_path):
    ids = pd.Series([f"1.2.{number}_{label}" for number in range(3) for label in LABELS])
    names = cached_images(tmp_path, image_ids(ids))
    assert list(names) == list(image_ids(ids)), "without a key they are as they are"
    read_key(tmp_path / "pseudonyms.key")
    names = cached_images(tmp_path, image_ids(ids))
    assert not set(names) & set(image_ids(ids))
    table = write_submission(tmp_path / "submission.csv", predictions(names.unique()), ids, names)
    assert list(table["ID"]) == list(ids)
    assert (table["Label"].to_numpy() == predictions(names.unique()).to_numpy().ravel()).all()
