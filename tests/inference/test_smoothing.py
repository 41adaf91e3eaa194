"""Laws of smoothing along z: a mean by true distance within a series, fitted where it helps; and of its script."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from models.common.errors import InputError
from models.common.files import write_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.prediction_files import read_predictions
from models.inference.comparing import differences, resample
from models.inference.gained import Gain
from models.inference.runs import chosen_on_own_slices, load_out_of_fold, load_runs
from models.inference.smoothed_run import SmoothOptions, smooth_run
from models.inference.smoothing import fit_width, smooth
from models.preprocessing.geometry import USUAL_GAP
from models.train_small import CONFIG
from models.training.metric import weighted_log_loss
from models.training.run_record import read_record, read_run, save_config
from models.training.scoring import WEIGHTED
from models.training.weights import save_weights

widths = st.floats(0.05, 60)
# Places in tenths of mm, so that slices share some; NaN: a slice without a place.
places = st.lists(st.integers(-300, 300).map(lambda tenths: tenths / 10), min_size=1, max_size=12)
heads = st.lists(places, min_size=1, max_size=4)
seeds = st.integers(0, 2**32 - 1)


def slice_table(series: dict[str | None, list[float]]) -> pd.DataFrame:
    """Metadata of series with slices at these z, in anatomical order."""
    rows = [(f"ID_{name}_{i:03d}", name, z) for name, places in series.items() for i, z in enumerate(sorted(places))]
    return pd.DataFrame(rows, columns=["image_id", "series_id", "z"]).assign(patient_id=[row[1] for row in rows])


def slice_tables(heads: list[list[float]]) -> pd.DataFrame:
    return slice_table({f"s{number}": places for number, places in enumerate(heads)})


def predictions(slices: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    values = expit(np.random.default_rng(seed).normal(-2, 3, (len(slices), 6))).astype(np.float32)
    return pd.DataFrame(values, columns=list(LABELS), index=pd.Index(slices["image_id"]))


def by_hand(values: np.ndarray, z: np.ndarray, width: float) -> np.ndarray:
    """One series, slice by slice."""
    smoothed = []
    for place in z:
        weights = [np.exp(-((place - other) ** 2) / (2 * width**2)) for other in z]
        smoothed.append(expit(np.average(logit(values.astype(float)), axis=0, weights=weights)))
    return np.array(smoothed)


def assert_same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Per image, whatever the order of rows, to the rounding of float32."""
    pd.testing.assert_frame_equal(one.loc[other.index], other, rtol=1e-5, atol=1e-12)


@given(places, widths, seeds)
def test_it_is_the_mean_of_the_logits_weighted_by_distance(z, width, seed):
    slices = slice_tables([z])
    expected = by_hand(predictions(slices, seed).to_numpy(), slices["z"].to_numpy(), width)
    np.testing.assert_allclose(smooth(predictions(slices, seed), slices, width), expected, rtol=1e-5)


@given(heads, widths, st.floats(2**-120, 1 - 2**-24, width=32))
def test_a_constant_stays(heads, width, value):
    constant = predictions(slice_tables(heads)) * 0 + np.float32(value)
    pd.testing.assert_frame_equal(smooth(constant, slice_tables(heads), width), constant)


@pytest.mark.parametrize("value", [0, 1])
def test_probabilities_of_exactly_0_and_1_stay_finite_and_next_to_them(value):
    slices = slice_tables([[0.0, 5.0, 10.0]])
    smoothed = smooth(predictions(slices) * 0 + np.float32(value), slices, 5)
    np.testing.assert_allclose(smoothed, value, atol=1e-7)


@given(heads, seeds)
def test_a_width_of_0_is_the_identity(heads, seed):
    slices = slice_tables(heads)
    for table in (predictions(slices, seed), predictions(slices, seed).round()):
        pd.testing.assert_frame_equal(smooth(table, slices, 0), table)


@given(heads, widths, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(heads, width, random):
    slices = slice_tables(heads)
    one, other = (random.sample(range(len(slices)), len(slices)) for _ in range(2))
    turned = smooth(predictions(slices).iloc[one], slices.iloc[other], width)
    assert list(turned.index) == list(slices["image_id"].iloc[one])
    assert (turned.dtypes == np.float32).all()
    assert_same(smooth(predictions(slices), slices, width), turned)


@pytest.mark.parametrize("known", [True, False], ids=["by z", "by order"])
@given(heads, widths)
def test_head_first_or_feet_first_changes_nothing(known, heads, width):
    slices = slice_tables(heads)
    slices = slices if known else slices.assign(z=np.nan)
    turned = slices.assign(z=-slices["z"]).iloc[::-1]
    assert_same(smooth(predictions(slices), turned, width), smooth(predictions(slices), slices, width))


@given(heads, widths)
def test_series_never_mix(heads, width):
    slices = slice_tables(heads)
    together = smooth(predictions(slices), slices, width)
    for _, series in slices.groupby("series_id"):
        alone = smooth(predictions(slices).loc[series["image_id"]], slices, width)
        assert_same(together, alone)


@given(places, st.floats(-1000, 1000), widths)
def test_only_distances_count(z, shift, width):
    slices = slice_tables([z])
    moved = slices.assign(z=slices["z"] + shift)
    assert_same(smooth(predictions(slices), moved, width), smooth(predictions(slices), slices, width))


@given(places, widths)
def test_a_smoothed_logit_lies_between_those_of_its_series(z, width):
    table = predictions(slice_tables([z]))
    smoothed = smooth(table, slice_tables([z]), width)
    assert ((smoothed >= table.min() * (1 - 1e-6)) & (smoothed <= table.max() * (1 + 1e-6))).all(axis=None)


def test_the_widest_gives_every_slice_the_mean_of_its_series():
    slices = slice_tables([[0.0, 5.0, 11.0, 30.0]])
    mean = expit(logit(predictions(slices)).mean())
    np.testing.assert_allclose(smooth(predictions(slices), slices, 1e6), np.tile(mean, (4, 1)), rtol=1e-5)


def test_slices_that_share_a_place_become_the_same():
    slices = slice_tables([[0.0, 5.0, 5.0, 10.0]])
    smoothed = smooth(predictions(slices), slices, 3)
    pd.testing.assert_series_equal(smoothed.iloc[1], smoothed.iloc[2], check_names=False)


def test_without_any_z_neighbours_are_the_usual_spacing_apart():
    slices = slice_tables([[0.0, 1.0, 2.0, 3.0]])
    spaced = slices.assign(z=USUAL_GAP * np.arange(4))
    table = predictions(slices)
    pd.testing.assert_frame_equal(smooth(table, slices.assign(z=np.nan), 4), smooth(table, spaced, 4))
    gap = table.drop("ID_s0_001")  # a slice that is not predicted keeps its place
    pd.testing.assert_frame_equal(smooth(gap, slices.assign(z=np.nan), 4), smooth(gap, spaced, 4))


def test_a_slice_that_alone_has_no_z_and_one_without_a_series_stay_as_they_are():
    slices = slice_table({"a": [0.0, 5.0, 10.0, 15.0], None: [0.0, 5.0]})
    slices.loc[2, "z"] = np.nan
    table = predictions(slices)
    table.iloc[[2, 5]] = table.iloc[[2, 5]].round()  # 0 and 1, to the bit
    smoothed = smooth(table, slices, 4)
    pd.testing.assert_frame_equal(smoothed.iloc[[2, 4, 5]], table.iloc[[2, 4, 5]])
    others = [0, 1, 3]
    expected = by_hand(table.iloc[others].to_numpy(), np.array([0.0, 5.0, 15.0]), 4)
    np.testing.assert_allclose(smoothed.iloc[others], expected, rtol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 400])
def test_a_study_of_any_length(count):
    slices = slice_table({"a": [0.625 * place for place in range(count)]})
    smoothed = smooth(predictions(slices), slices, 5)
    assert len(smoothed) == count
    if count == 1:
        pd.testing.assert_frame_equal(smoothed, predictions(slices))
    if count == 400:
        expected = by_hand(predictions(slices).to_numpy(), slices["z"].to_numpy(), 5)
        np.testing.assert_allclose(smoothed, expected, rtol=1e-5)


def test_a_slice_that_the_metadata_lacks_is_named():
    slices = slice_tables([[0.0, 5.0, 10.0]])
    with pytest.raises(InputError, match=r"lacks 1 of 3 predicted slices, first ID_s0_001"):
        smooth(predictions(slices), slices.drop(1), 5)


def studies(count: int = 60, length: int = 30, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Metadata, the logits of bleeds that are smooth along z, and labels that are drawn from them."""
    generator = np.random.default_rng(seed)
    slices = slice_table({f"s{number:02d}": [USUAL_GAP * place for place in range(length)] for number in range(count)})
    waves = generator.uniform(0.1, 0.4, (count, 1, 6)) * np.arange(length)[:, None]
    logits = 4 * np.sin(waves + generator.uniform(0, 6, (count, 1, 6))).reshape(-1, 6) - 2
    labels = (generator.random(logits.shape) < expit(logits)).astype(np.float32)
    index = pd.Index(slices["image_id"])
    return slices, pd.DataFrame(logits, index, list(LABELS)), pd.DataFrame(labels, index, list(LABELS))


def noisy(logits: pd.DataFrame, noise: float, seed: int = 1) -> pd.DataFrame:
    """Probabilities whose logits are off by so much, independently from slice to slice."""
    return expit(logits + np.random.default_rng(seed).normal(0, noise, logits.shape)).astype(np.float32)


def test_noise_on_a_smooth_signal_gives_a_width_that_lowers_the_loss():
    slices, logits, labels = studies()
    table = noisy(logits, 2)
    width = fit_width(table, slices, labels)
    assert 2 < width < 16
    tried = (0, 0.8 * width, width, 1.25 * width)
    losses = {some: weighted_log_loss(labels.to_numpy(), smooth(table, slices, some).to_numpy()) for some in tried}
    assert losses[width] == min(losses.values())
    assert losses[width] < 0.9 * losses[0]


def test_more_noise_needs_a_larger_width():
    slices, logits, labels = studies()
    fitted = [fit_width(noisy(logits, noise), slices, labels) for noise in (0.5, 1, 2, 4)]
    assert fitted == sorted(fitted)


def test_what_does_not_depend_on_the_neighbours_is_not_smoothed():
    slices, logits, _ = studies()
    generator = np.random.default_rng(2)
    table = pd.DataFrame(expit(generator.normal(-1, 2, logits.shape)).astype(np.float32), logits.index, logits.columns)
    labels = (generator.random(table.shape) < table).astype(np.float32)
    width = fit_width(table, slices, labels)
    assert width < 0.3 * USUAL_GAP  # a neighbour weighs less than 0.4 %
    np.testing.assert_allclose(smooth(table, slices, width), table, atol=0.02)


def test_predictions_that_cannot_be_better_have_a_width_of_0():
    slices, _, labels = studies(count=3)
    single = slices.drop_duplicates("series_id")
    assert fit_width(predictions(single), single, labels) == 0
    assert fit_width(labels, slices, labels) == 0


def test_a_prediction_without_a_label_is_refused():
    slices, logits, labels = studies(count=2)
    with pytest.raises(InputError, match=r"labels lacks 1 of 60 slices, first ID_s00_003"):
        fit_width(expit(logits), slices, labels.drop("ID_s00_003"))


@pytest.fixture
def work(tmp_path) -> Work:
    """A cache of 60 training and 10 test studies, and the noisy predictions of three folds of a run b2."""
    work = Work(tmp_path)
    slices, logits, labels = studies()
    test_slices, test_logits, _ = studies(count=10, seed=5)
    test_slices = test_slices.assign(image_id="test_" + test_slices["image_id"])
    test = noisy(test_logits, 2).set_axis(pd.Index(test_slices["image_id"]))
    write_parquet(work.metadata("train"), slices.merge(labels.reset_index(), on="image_id"))
    write_parquet(work.metadata("test"), test_slices)
    for fold, (noise, own) in enumerate(zip((1, 2, 4), np.split(logits.index, 3), strict=True)):
        write_parquet(work.run("b2", fold) / "valid.parquet", noisy(logits.loc[own], noise, fold).reset_index())
        write_parquet(work.run("b2", fold) / "test.parquet", test.reset_index())
        save_weights(work.run("b2", fold), torch.nn.Linear(1, 1))
        save_config(work.run("b2", fold), replace(CONFIG, name="b2"), fold, {})
    return work


def smooth_b2(work: Work) -> None:
    smooth_run(SmoothOptions("b2", work=work.root))


def written(work: Work) -> dict[str, bytes]:
    folder = work.runs / "b2_smoothed"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def width(work: Work, fold: int) -> float:
    return json.loads((work.run("b2_smoothed", fold) / "config.json").read_text())["width_mm"]


def read(file: Path) -> pd.DataFrame:
    return read_predictions(file, "")


def test_the_script_writes_a_run_that_is_loaded_and_blended_like_any_other(work, capsys):
    smooth_b2(work)
    files = ("config.json", "test.parquet", "valid.parquet")
    assert set(written(work)) == {f"fold{fold}/{file}" for fold in range(3) for file in files}
    b2, smoothed = load_runs(work)
    assert (smoothed.name, smoothed.folds) == ("b2_smoothed", [0, 1, 2])
    assert list(smoothed.out_of_fold.index) == list(b2.out_of_fold.index)
    assert list(smoothed.test.index) == list(b2.test.index)
    labels = studies()[2].loc[b2.out_of_fold.index].to_numpy()
    losses = [f"{weighted_log_loss(labels, run.out_of_fold.to_numpy()):.4f}" for run in (b2, smoothed)]
    assert losses[1] < losses[0]
    *_, table, difference = capsys.readouterr().out.splitlines()
    assert table.split() == ["all", "1800", *losses]
    assert difference == paired(b2.out_of_fold, smoothed.out_of_fold).describe("b2_smoothed", "b2")
    assert "paired, on 1,800 slices of 60 patients" in difference


def paired(before: pd.DataFrame, after: pd.DataFrame) -> Gain:
    """The paired difference of two predictions, from what is drawn of each."""
    labels, patients = studies()[2].loc[before.index].to_numpy(), before.index.str.split("_").str[1].to_numpy()
    drawn = [resample(labels, table.loc[before.index].to_numpy(), patients) for table in (after, before)]
    row = differences(*drawn).loc[WEIGHTED]
    return Gain(row["value"], row["low"], row["high"], len(before), len(set(patients)))


def test_each_fold_notes_what_smoothing_has_gained_on_its_slices(work):
    smooth_b2(work)
    for fold in range(3):
        record = read_record(work.run("b2_smoothed", fold))
        before, after = (read(work.run(name, fold) / "valid.parquet") for name in ("b2", "b2_smoothed"))
        assert record.gain == pytest.approx(paired(before, after)._asdict())
        assert record.gain["high"] < 0
    path = work.run("b2_smoothed", 0) / "config.json"
    older = {name: value for name, value in json.loads(path.read_text()).items() if name != "gain"}
    path.write_text(json.dumps(older))
    assert read_record(path.parent).gain is None


def test_the_width_of_a_fold_is_fitted_on_the_others_and_serves_its_test_slices(work):
    smooth_b2(work)
    slices, _, labels = studies()
    test_slices = pd.read_parquet(work.metadata("test"))
    for fold in range(3):
        others = pd.concat(read(work.run("b2", other) / "valid.parquet") for other in range(3) if other != fold)
        assert width(work, fold) == fit_width(others, slices, labels) > 0
        for file, table in (("valid.parquet", slices), ("test.parquet", test_slices)):
            expected = smooth(read(work.run("b2", fold) / file), table, width(work, fold))
            pd.testing.assert_frame_equal(read(work.run("b2_smoothed", fold) / file), expected)
    assert width(work, 0) > width(work, 2)  # that of the cleanest fold comes from the noisier ones


def test_own_labels_do_not_change_the_width_of_a_fold(work):
    smooth_b2(work)
    first = [width(work, fold) for fold in range(3)]
    table = pd.read_parquet(work.metadata("train"))
    table.loc[:599, list(LABELS)] = 1 - table.loc[:599, list(LABELS)]  # of fold 0
    write_parquet(work.metadata("train"), table)
    for path in sorted((work.runs / "b2_smoothed").rglob("config.json")):
        path.unlink()
    smooth_b2(work)
    assert width(work, 0) == first[0]
    assert width(work, 1) != first[1]


def test_the_only_fold_is_fitted_on_itself_and_that_is_said(work, capsys):
    for fold in (0, 2):
        (work.run("b2", fold) / "config.json").unlink()
    (work.run("b2", 1) / "test.parquet").unlink()
    smooth_b2(work)
    told = "fold 1 has but its own slices: the width is fitted on the very slices that it is scored on"
    assert told in capsys.readouterr().out
    smooth_b2(work)  # it travels with the run
    assert told in capsys.readouterr().out
    assert chosen_on_own_slices(work, "b2_smoothed", [1]) == ["the width of the smoothing, of fold 1"]
    assert set(written(work)) == {"fold1/config.json", "fold1/valid.parquet"}
    slices, _, labels = studies()
    assert width(work, 1) == fit_width(read(work.run("b2", 1) / "valid.parquet"), slices, labels)


def test_what_is_smoothed_is_left_alone_and_what_lacks_is_added_to_the_same_bytes(work, capsys):
    smooth_b2(work)
    first, table = written(work), capsys.readouterr().out.splitlines()[-6:]
    smooth_b2(work)
    again = capsys.readouterr().out
    assert again.count("is there; delete") == 3
    assert again.splitlines()[-6:] == table
    assert written(work) == first
    (work.run("b2_smoothed", 1) / "config.json").unlink()  # as after a kill
    (work.run("b2_smoothed", 1) / "test.parquet").unlink()
    killed = (
        "import os, sys, pathlib; from models.common.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])):\n    os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", killed, work.run("b2_smoothed", 1) / "valid.parquet"], check=False)
    assert list(work.run("b2_smoothed", 1).glob(".*"))
    smooth_b2(work)
    assert written(work) == first


@pytest.mark.parametrize("file", ["fold0/test.parquet", "fold1/valid.parquet"])
@pytest.mark.parametrize("change", ["another", "none"])
def test_other_predictions_than_those_it_was_made_from_are_refused(work, file, change):
    smooth_b2(work)
    first, path = written(work), work.runs / "b2" / file
    if change == "another":
        write_parquet(path, (1 - read(path)).reset_index())
    elif file == "fold0/test.parquet":
        path.unlink()
    else:
        (path.parent / "config.json").unlink()
    with pytest.raises(InputError, match=rf"made from another b2/{file}, or without it; delete \S+/b2_smoothed"):
        smooth_b2(work)
    assert written(work) == first
    if change == "another":  # whoever reads it is told
        for reader in (load_runs, load_out_of_fold):
            with pytest.raises(InputError, match=rf"was made from another b2/{file}; delete \S+ and .*smooth.py b2"):
                reader(work, ["b2_smoothed"])


def test_a_new_fold_is_another_input_too(work):
    config = work.run("b2", 2) / "config.json"
    content = config.read_bytes()
    config.unlink()
    smooth_b2(work)
    config.write_bytes(content)
    with pytest.raises(InputError, match=r"fold0 was made from another b2/fold2/valid\.parquet"):
        smooth_b2(work)
    assert not work.run("b2_smoothed", 2).exists()


def test_a_trained_run_of_that_name_is_not_overwritten(work):
    (work.runs / "b2").rename(work.runs / "b2_smoothed")
    with pytest.raises(InputError, match=r"no finished fold in \S+b2; train one with: python models/train_b2.py"):
        smooth_b2(work)
    save_weights(work.run("b2", 0), torch.nn.Linear(1, 1))
    save_config(work.run("b2", 0), CONFIG, 0, {})
    write_parquet(work.run("b2", 0) / "valid.parquet", noisy(studies()[1], 1).reset_index())
    first = written(work)
    with pytest.raises(InputError, match=r"b2_smoothed/fold0 holds a trained network"):
        smooth_b2(work)
    assert written(work) == first


def test_a_smoothed_fold_has_no_network_and_names_its_own_repair(work):
    smooth_b2(work)
    with pytest.raises(InputError, match=r"smoothed predictions of b2 and no network; name b2"):
        read_run(work.run("b2_smoothed", 0))
    (work.run("b2_smoothed", 0) / "test.parquet").unlink()
    (work.run("b2_smoothed", 1) / "valid.parquet").unlink()
    with pytest.raises(InputError, match=rf"make it with: python models/smooth.py b2 --work {work.root}$"):
        load_runs(work, ["b2_smoothed"])


@pytest.mark.parametrize("damage", ["{", "[]", '{"width_mm": 5.0}'])
def test_a_damaged_record_is_refused(work, damage):
    smooth_b2(work)
    (work.run("b2_smoothed", 0) / "config.json").write_text(damage)
    assert [run.name for run in load_runs(work)] == ["b2"]  # it blocks nobody
    for reader in (partial(load_runs, names=["b2_smoothed"]), smooth_b2):
        with pytest.raises(InputError, match=r"config.json cannot be read .* delete \S+b2_smoothed/fold0"):
            reader(work)


def test_a_record_of_a_newer_version_is_not_called_damaged(work):
    smooth_b2(work)
    record = work.run("b2_smoothed", 0) / "config.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"surprise": 1, "project": "9.8"}))
    for reader in (partial(load_runs, names=["b2_smoothed"]), smooth_b2):
        with pytest.raises(
            InputError, match=r"config.json has the field 'surprise', which .*; version 9.8 wrote it: use"
        ):
            reader(work)
