"""Laws of an interrupted inference: what is predicted is kept, and the same command ends with the same bytes."""

import os
import random
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from once import linked

from models.common.channels import Channel
from models.common.errors import InputError
from models.common.files import read_json, write_json, write_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.options import InferOptions, Machine, TrainOptions
from models.common.prediction_files import read_predictions
from models.inference import fold as module
from models.inference.parts import MADE_FROM, Parts, only_inference
from models.inference.predict import infer
from models.inference.stored import Stored
from models.preprocessing.store import Series, compress_slice, write_series
from models.preprocessing.tables import UNREADABLE, read_slices
from models.preprocessing.windows import BRAIN, SOFT_TISSUE, SUBDURAL
from models.train_small import CONFIG
from models.training.d4 import mean_probability
from models.training.dataset import SliceDataset
from models.training.networks import build_network
from models.training.planes import open_series
from models.training.run import train
from models.training.run_record import save_config
from models.training.symmetries import D4
from models.training.weights import save_weights


@pytest.fixture(scope="module")
def options(few) -> InferOptions:
    machine = Machine(work=few.root, device="cpu")
    train(TrainOptions(replace(CONFIG, name="predicted", epochs=1), machine=machine))
    return InferOptions("predicted", batch_size=16, tta="flip", machine=machine)


@pytest.fixture(scope="module")
def undisturbed(options, few) -> bytes:
    output = few.run("predicted", 0) / "test.parquet"
    infer(options)
    content = output.read_bytes()
    output.unlink()
    return content


@pytest.fixture
def own(options, undisturbed, few, tmp_path) -> tuple[InferOptions, Path]:
    """Options whose predictions go to a working folder of their own, and the file that they will be in."""
    (tmp_path / "cache").symlink_to(few.cache)
    weights = few.run("predicted", 0)
    machine = replace(options.machine, work=tmp_path)
    output = tmp_path / "runs" / "predicted" / "fold0" / "test.parquet"
    return replace(options, weights=weights, machine=machine, checkpoint_minutes=0), output


def stop_after(monkeypatch, batches: int, act) -> None:
    """Do something when so many batches have been predicted."""
    original = module.predict_batches

    def some(*arguments):
        for number, probability in enumerate(original(*arguments), start=1):
            yield probability
            if number == batches:
                act()

    monkeypatch.setattr(module, "predict_batches", some)


def fail() -> None:
    raise OSError("the machine went away")


@pytest.mark.parametrize("batches", [1, 5, 11])
def test_an_inference_that_is_cut_short_goes_on_to_the_same_bytes(own, undisturbed, monkeypatch, batches, capsys):
    options, output = own
    with monkeypatch.context() as patch:
        stop_after(patch, batches, fail)
        with pytest.raises(OSError, match="went away"):
            infer(options)
    assert not output.exists()
    assert len(list(output.with_suffix(".parts").iterdir())) == batches
    infer(options)
    count = len(read_predictions(output, ""))
    assert f"{count - 16 * batches} of {count} slices to predict" in capsys.readouterr().out
    assert output.read_bytes() == undisturbed
    assert {path.name for path in output.parent.iterdir()} == {output.name}


def test_a_signal_saves_what_is_predicted_and_names_the_command(own, undisturbed, monkeypatch, capsys):
    options, output = own
    options = replace(options, checkpoint_minutes=60)
    with monkeypatch.context() as patch:
        stop_after(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as caught:
            infer(options)
    assert caught.value.code == 128 + signal.SIGTERM
    assert "stopped by SIGTERM, what is predicted is saved; go on with: python" in capsys.readouterr().out
    assert len(list(output.with_suffix(".parts").iterdir())) == 1
    infer(options)
    assert output.read_bytes() == undisturbed


def test_series_that_gain_slices_or_images_are_predicted_anew_and_no_others(own, undisturbed, few, capsys):
    """A slice comes later than the others of its series; and a file that was cut off has been copied anew."""
    options, output = own
    (output.parents[3] / "cache").unlink()
    work = linked(few, output.parents[3])
    whole = read_slices(few, "test")
    later, mended, *_ = (rows for _, rows in whole.groupby("series_id", sort=False))
    before = whole.drop(index=later.index[-1])
    before.loc[mended.index[3], "chunk"] = UNREADABLE
    for slices in (before, whole):
        work.metadata("test").unlink()
        write_parquet(work.metadata("test"), slices)
        infer(options)
    said = capsys.readouterr().out
    assert f"{output}: slices of 2 series have come or changed since, or can be read now" in said
    assert f"{len(later) + len(mended)} of {len(whole)} slices to predict" in said
    pd.testing.assert_frame_equal(pd.read_parquet(output), read(undisturbed, output.parent), rtol=1e-5)
    infer(options)
    assert f"{output} is there; delete it to predict again" in capsys.readouterr().out


def test_a_damaged_part_is_named_and_predicted_again(own, undisturbed, monkeypatch, capsys):
    options, output = own
    with monkeypatch.context() as patch:
        stop_after(patch, 6, fail)
        with pytest.raises(OSError, match="went away"):
            infer(options)
    part = random.Random(0).choice(sorted(output.with_suffix(".parts").iterdir()))
    part.write_bytes(part.read_bytes()[:1000])
    infer(options)
    assert f"warning: {part} is damaged; its slices are predicted again" in capsys.readouterr().out
    predictions = pd.read_parquet(output)
    pd.testing.assert_frame_equal(predictions, read(undisturbed, output.parent), rtol=1e-5)


def test_five_channels_with_neighbours_are_predicted_alike_in_one_go_and_in_two(few, tmp_path, monkeypatch):
    channels = [Channel(0, window) for window in (BRAIN, SUBDURAL, SOFT_TISSUE)]
    channels += [Channel(offset, BRAIN, "mm") for offset in (-5, 5)]
    config = replace(CONFIG, name="context", channels=tuple(channels))
    network = build_network(config).eval()
    (tmp_path / "cache").symlink_to(few.cache)
    output = Work(tmp_path).run("context", 0) / "test.parquet"
    output.parent.mkdir(parents=True)
    save_weights(output.parent, network)
    save_config(output.parent, config, 0, {"prevalence": dict.fromkeys(LABELS, 0.1)})
    options = InferOptions("context", batch_size=16, checkpoint_minutes=0, machine=Machine(work=tmp_path, device="cpu"))
    with monkeypatch.context() as patch:
        stop_after(patch, 3, fail)
        with pytest.raises(OSError, match="went away"):
            infer(options)
    infer(options)  # its slices are some of their series, whose others have been predicted
    slices = read_slices(few, "test")
    dataset = SliceDataset(slices, few, config, augment="none")
    grey = torch.stack([dataset[0, row][0] for row in range(len(slices))])
    assert grey.shape == (len(slices), 5, 64, 64)
    with torch.inference_mode():
        expected = mean_probability(network, grey, group=D4).numpy()
    np.testing.assert_allclose(pd.read_parquet(output)[list(LABELS)], expected, rtol=1e-4)


def read(content: bytes, folder: Path) -> pd.DataFrame:
    (folder / "expected.parquet").write_bytes(content)
    return pd.read_parquet(folder / "expected.parquet")


def test_parts_that_were_made_in_another_way_are_refused(own, monkeypatch):
    options, _ = own
    with monkeypatch.context() as patch:
        stop_after(patch, 2, fail)
        with pytest.raises(OSError, match="went away"):
            infer(options)
    with pytest.raises(InputError, match="was made with tta flip, not d4; delete it to make it anew"):
        infer(replace(options, tta="d4"))


def test_a_network_of_drawings_that_predicts_people_says_so(own, few, tmp_path, capsys):
    options, output = own
    infer(options)
    assert "warning: this network" not in capsys.readouterr().out  # it predicts drawings
    output.unlink()
    (tmp_path / "cache").unlink()
    shutil.copytree(few.cache, tmp_path / "cache")
    prepared = Work(tmp_path).prepared
    write_json(prepared, read_json(prepared, "") | {"synthetic": False})
    infer(options)
    assert "warning: this network has learnt from drawings of make_phantom.py" in capsys.readouterr().out


def test_a_second_inference_of_the_same_file_is_refused(own):
    options, output = own
    message = rf"another inference \(process {os.getpid()} on .*\) works in .*test.parquet"
    with only_inference(output), pytest.raises(InputError, match=message):
        infer(options)


def exchange(work: Work, series_id: str) -> None:
    """Other slices under the same names, as when a study is sent again with another intercept."""
    path = work.series(64, series_id)
    slices = [image + 30 for image in Series(path).read_some(range(len(Series(path))))]
    path.unlink()  # it may be a link
    write_series(path, list(map(compress_slice, slices)), slices[0].shape, {})
    open_series.cache_clear()  # as another process would find it


@pytest.fixture
def copied(own, few, tmp_path) -> tuple[InferOptions, Path, Work]:
    """The same over a cache of its own, and its working folder."""
    (tmp_path / "cache").unlink()
    shutil.copytree(few.cache, tmp_path / "cache")
    return *own, Work(tmp_path)


def test_slices_that_are_others_under_the_same_names_are_predicted_anew_and_no_others(copied, undisturbed, capsys):
    options, output, work = copied
    infer(options)
    before, series = read_predictions(output, ""), read_slices(work, "test").groupby("series_id")["image_id"]
    (name, images), *_ = series
    capsys.readouterr()
    infer(options)
    assert "is there; delete it" in capsys.readouterr().out
    exchange(work, name)
    infer(options)
    assert f"{len(images)} of {len(before)} slices to predict" in capsys.readouterr().out
    after = read_predictions(output, "")
    is_other = (after != before.loc[after.index]).any(axis=1)
    assert set(after.index[is_other]) == set(images)
    content = output.read_bytes()
    output.unlink()
    infer(options)
    assert output.read_bytes() == content != undisturbed
    infer(options)
    assert "is there; delete it" in capsys.readouterr().out


def test_predictions_that_were_begun_are_not_of_slices_that_have_been_exchanged_since(copied, monkeypatch):
    options, output, work = copied
    with monkeypatch.context() as patch:
        stop_after(patch, 3, fail)
        with pytest.raises(OSError, match="went away"):
            infer(options)
    assert list(output.with_suffix(".parts").iterdir())
    exchange(work, read_slices(work, "test")["series_id"].iloc[0])
    infer(options)
    content = output.read_bytes()
    output.unlink()
    infer(options)
    assert output.read_bytes() == content


def test_of_a_file_that_notes_no_checksums_nothing_is_predicted_anew(copied, capsys):
    options, output, work = copied
    infer(options)
    table = pd.read_parquet(output)
    del table.attrs[MADE_FROM]
    write_parquet(output, table)
    exchange(work, read_slices(work, "test")["series_id"].iloc[0])
    capsys.readouterr()
    infer(options)
    assert "is there; delete it" in capsys.readouterr().out


def test_parts_are_only_those_of_their_file(tmp_path):
    parts = Parts(tmp_path / "test.parquet", {})
    assert parts.read(Stored(pd.Series(dtype=str), {})).empty
    shutil.rmtree(tmp_path)
    parts.delete()  # of what never was
