"""Laws of prediction files: read whole or refused by name, aligned by slice, no slice left without a prediction."""

import numpy as np
import pandas as pd
import pytest

from models.common.errors import InputError
from models.common.files import write_parquet
from models.common.labels import LABELS
from models.common.prediction_files import read_predictions
from models.inference.predictions import align, fill_unreadable, read_probabilities

REPAIR = "python models/infer_example.py --fold 0"
PRIOR = pd.Series([0.01, 0.02, 0.03, 0.04, 0.05, 0.06], index=list(LABELS))


def predictions(image_ids, seed: int = 0) -> pd.DataFrame:
    values = np.random.default_rng(seed).random((len(image_ids), 6), dtype=np.float32)
    return pd.DataFrame(values, columns=list(LABELS), index=pd.Index(image_ids, name="image_id"))


def slice_table(series: dict[str, list[str]]) -> pd.DataFrame:
    return pd.DataFrame([(name, image_id) for name, ids in series.items() for image_id in ids]).set_axis(
        ["series_id", "image_id"], axis=1
    )


@pytest.fixture
def write(tmp_path):
    def write_table(table: pd.DataFrame):
        write_parquet(tmp_path / "test.parquet", table)
        return tmp_path / "test.parquet"

    return write_table


def test_a_prediction_file_comes_back_by_slice(write):
    expected = predictions(["ID_b", "ID_a"])
    read = read_predictions(write(expected.reset_index()), REPAIR)
    pd.testing.assert_frame_equal(read, expected)
    assert (read.dtypes == np.float32).all()


def test_probabilities_of_exactly_0_and_1_are_read(write):
    expected = predictions(["ID_a", "ID_b"]).round()
    pd.testing.assert_frame_equal(read_predictions(write(expected.reset_index()), REPAIR), expected)


@pytest.mark.parametrize("value", [np.nan, -0.01, 1.01, np.inf])
def test_a_value_that_is_no_probability_is_refused_with_its_slice(write, value):
    table = predictions(["ID_a", "ID_b", "ID_c"]).reset_index()
    table.loc[1, "subdural"] = value
    with pytest.raises(InputError, match=f"ID_b .*no probability.*{REPAIR}"):
        read_predictions(write(table), REPAIR)


def test_a_slice_that_stands_twice_is_refused_by_name(write):
    with pytest.raises(InputError, match=f"ID_a twice.*{REPAIR}"):
        read_predictions(write(predictions(["ID_a", "ID_b", "ID_a"]).reset_index()), REPAIR)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop(columns="any"),
        lambda table: table[["image_id", *reversed(LABELS)]],
        lambda table: table.rename(columns={"image_id": "ID"}),
        lambda table: table.assign(extra=0.5),
    ],
    ids=["a label lacks", "another order", "another name", "one too much"],
)
def test_other_columns_are_refused(write, change):
    with pytest.raises(InputError, match=f"columns.*{REPAIR}"):
        read_predictions(write(change(predictions(["ID_a"]).reset_index())), REPAIR)


def test_a_missing_prediction_file_is_named_with_its_command(tmp_path):
    with pytest.raises(InputError, match=f"test.parquet.*{REPAIR}"):
        read_predictions(tmp_path / "test.parquet", REPAIR)


def test_a_file_is_read_as_its_extension_says(write, tmp_path):
    expected = predictions(["ID_a", "ID_b"])
    rows = expected.stack().reset_index().set_axis(["image_id", "label", "Label"], axis=1)
    submission = rows.assign(ID=rows["image_id"] + "_" + rows["label"])[["ID", "Label"]]
    submission.to_csv(tmp_path / "submission.csv", index=False)
    pd.testing.assert_frame_equal(read_probabilities(write(expected.reset_index())), expected)
    read = read_probabilities(tmp_path / "submission.csv")
    pd.testing.assert_frame_equal(read.astype(np.float32), expected)
    with pytest.raises(InputError, match=r"submission.csv.zip is neither .*; unpack"):
        read_probabilities(tmp_path / "submission.csv.zip")


def test_predictions_are_aligned_by_slice_and_not_by_row():
    known = predictions(["ID_c", "ID_a", "ID_b"])
    aligned = align(known, pd.Series(["ID_a", "ID_c", "ID_a"]), "a run")
    assert list(aligned.index) == ["ID_a", "ID_c", "ID_a"]
    assert np.array_equal(aligned.iloc[1], known.iloc[0])


def test_slices_that_lack_are_counted_and_the_first_is_named():
    with pytest.raises(InputError, match=r"a run lacks 2 of 3 slices, first ID_x"):
        align(predictions(["ID_a"]), pd.Series(["ID_a", "ID_x", "ID_x", "ID_y"]), "a run")


def test_known_predictions_are_kept_in_the_order_of_the_slices():
    known = predictions(["ID_c", "ID_a", "ID_b"])
    filled = fill_unreadable(slice_table({"ID_s": ["ID_a", "ID_b", "ID_c"]}), known, PRIOR)
    pd.testing.assert_frame_equal(filled, known.loc[["ID_a", "ID_b", "ID_c"]])


def test_an_unreadable_slice_gets_the_mean_of_its_nearest_neighbours():
    known = predictions(["ID_a", "ID_d"])
    filled = fill_unreadable(slice_table({"ID_s": ["ID_a", "ID_b", "ID_c", "ID_d"]}), known, PRIOR)
    for image_id in ("ID_b", "ID_c"):
        np.testing.assert_allclose(filled.loc[image_id], known.mean(), rtol=1e-6)


def test_an_unreadable_slice_at_the_end_of_a_series_gets_its_one_neighbour():
    known = predictions(["ID_b", "ID_d"])
    table = slice_table({"ID_s": ["ID_a", "ID_b"], "ID_t": ["ID_c", "ID_d", "ID_e"]})
    filled = fill_unreadable(table, known, PRIOR)
    for image_id, neighbour in (("ID_a", "ID_b"), ("ID_c", "ID_d"), ("ID_e", "ID_d")):
        np.testing.assert_array_equal(filled.loc[image_id], known.loc[neighbour])


def test_a_series_without_a_prediction_and_a_slice_without_a_series_get_the_prior():
    table = slice_table({"ID_s": ["ID_a", "ID_b"], None: ["ID_x", "ID_y"], "ID_t": ["ID_c"]})
    filled = fill_unreadable(table, predictions(["ID_c"]), PRIOR)
    for image_id in ("ID_a", "ID_b", "ID_x", "ID_y"):
        np.testing.assert_array_equal(filled.loc[image_id], PRIOR.astype(np.float32))
    assert (filled.dtypes == np.float32).all()
    assert list(filled.index) == list(table["image_id"])
