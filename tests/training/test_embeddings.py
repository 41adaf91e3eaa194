"""Laws of stored embeddings: they are what the trained network sees, of the right slices, and never another's."""

import random
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch

from models import train_sequence, train_small
from models.common.errors import InputError
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.options import InferOptions, Machine, TrainOptions
from models.common.prediction_files import read_predictions
from models.inference import fold as predicting
from models.inference.predict import infer
from models.phantom.dicom import write_phantom
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.store import Series, compress_slice, write_series
from models.preprocessing.tables import UNREADABLE, read_slices, split_fold
from models.training import embeddings as module
from models.training import fold as running
from models.training.dataset import SliceDataset
from models.training.embeddings import SequenceDataset, extract, find_sources, read_study, read_views
from models.training.kinds import kind_of
from models.training.networks import HemorrhageNetwork, build_network
from models.training.planes import open_series
from models.training.processes import Processes
from models.training.run import train
from models.training.run_record import read_run
from models.training.weights import load_trained

ALONE = Processes(torch.device("cpu"))
BASE = replace(train_small.CONFIG, name="base", epochs=1)
CONFIG = replace(
    train_sequence.CONFIG, name="over_base", runs=("base",), views="none", epochs=1, batch_size=4, hidden=16
)


@pytest.fixture(scope="module")
def work(few, tmp_path_factory) -> Work:
    """A working folder with a trained network and recurrent layers over it, both of fold 0."""
    work = own_cache(few, tmp_path_factory.mktemp("embeddings"))
    for config in (BASE, CONFIG):
        train(TrainOptions(config, machine=machine(work)))
    return work


def own_cache(other: Work, folder: Path) -> Work:
    """A working folder with the tables and slices of another one, and no embeddings."""
    (folder / "cache").mkdir(parents=True)
    for path in other.cache.iterdir():
        if path.name != "embeddings":
            (folder / "cache" / path.name).symlink_to(path)
    return Work(folder)


def machine(work: Work) -> Machine:
    return Machine(work=work.root, device="cpu")


def source_of(work: Work) -> module.Source:
    (source,) = find_sources(CONFIG, work.run(CONFIG.name, 0))
    return source


def trained_network(source: module.Source) -> HemorrhageNetwork:
    network = build_network(source.record.config)
    load_trained(source.folder, read_run(source.folder), network)
    return network.eval()


def some_studies(work: Work, count: int) -> pd.DataFrame:
    slices = read_slices(work, "train")
    return slices[slices["series_id"].isin(slices["series_id"].unique()[:count])]


def images_of(work: Work, slices: pd.DataFrame) -> torch.Tensor:
    dataset = SliceDataset(slices, work, BASE, "none")
    return torch.stack([dataset[0, row][0] for row in range(len(slices))])


def stored(slices: pd.DataFrame, work: Work, source: module.Source, views: str) -> torch.Tensor:
    return torch.cat(
        [read_study(source.store(work, views) / f"{name}.slices") for name in slices["series_id"].unique()]
    )


close = partial(torch.testing.assert_close, rtol=3e-3, atol=3e-3)  # float16


@torch.no_grad()
def test_what_is_stored_are_embeddings_and_the_logits_that_the_head_makes_of_them(work):
    source, slices = source_of(work), some_studies(work, 3)
    network, seen = trained_network(source), stored(slices, work, source, "none")
    assert seen.shape == (len(slices), network.width + len(LABELS))
    close(seen[:, : -len(LABELS)], network.embed(images_of(work, slices)))
    close(seen[:, -len(LABELS) :], network(images_of(work, slices)))
    close(network.head(seen[:, : -len(LABELS)]), seen[:, -len(LABELS) :])


@torch.no_grad()
def test_with_flips_they_are_the_mean_over_both_images(work, tmp_path):
    own, source = own_cache(work, tmp_path), source_of(work)
    slices, network = some_studies(own, 2), trained_network(source)
    extract(slices, [source], "flip", machine(own), ALONE)
    images = images_of(own, slices)
    both = [torch.cat([network.embed(view), network(view)], dim=1) for view in (images, images.flip(-1))]
    close(stored(slices, own, source, "flip"), (both[0] + both[1]) / 2)
    assert (both[0] - both[1]).abs().max() > 0.05
    assert source.store(own, "flip") != source.store(own, "none")


@pytest.fixture(scope="module")
def apart(work, tmp_path_factory) -> Work:
    """Two studies in each of their two views."""
    own = own_cache(work, tmp_path_factory.mktemp("apart"))
    extract(some_studies(own, 2), [source_of(work)], "flip", machine(own), ALONE, apart=True)
    return own


@torch.no_grad()
def test_views_that_are_stored_apart_are_what_is_seen_in_each(work, apart):
    source, slices = source_of(work), some_studies(work, 2)
    network, images = trained_network(source), images_of(work, slices)
    assert source.store(apart, "flip", apart=True) != source.store(apart, "flip")
    files = [source.store(apart, "flip", apart=True) / f"{name}.slices" for name in slices["series_id"].unique()]
    views = torch.cat([read_views(file) for file in files])
    for number, view in enumerate((images, images.flip(-1))):
        close(views[:, number], torch.cat([network.embed(view), network(view)], dim=1))
    torch.testing.assert_close(torch.cat([read_study(file) for file in files]), views.mean(dim=1))


def test_a_study_is_drawn_in_one_of_its_views_or_their_mean_in_training_alone(work, apart):
    config, slices = replace(CONFIG, views="flip", views_apart=True), some_studies(work, 2)
    datasets = {drawn: SequenceDataset(slices, apart, config, [source_of(work)], drawn) for drawn in (True, False)}
    views = torch.cat([read_views(*datasets[True].files(row)) for row in (0, len(slices) - 1)])
    choices, drawn = [*views.unbind(dim=1), views.mean(dim=1)], set()
    for epoch in range(12):
        seen = {key: torch.stack([one[epoch, row][0] for row in range(len(slices))]) for key, one in datasets.items()}
        assert torch.equal(seen[False], choices[2])
        for study in range(2):
            rows = torch.from_numpy(slices["series_id"].to_numpy() == slices["series_id"].unique()[study])
            (number,) = (number for number, one in enumerate(choices) if torch.equal(seen[True][rows], one[rows]))
            drawn.add((study, number))
        again = torch.stack([datasets[True][epoch, row][0] for row in range(len(slices))])
        assert torch.equal(again, seen[True])
    assert drawn == {(study, number) for study in range(2) for number in range(3)}


def test_layers_train_on_views_apart_and_are_validated_on_their_mean(work, tmp_path):
    own = own_cache(work, tmp_path)
    shutil.copytree(work.run("base", 0), own.run("base", 0))
    changes = {"views": "flip", "views_apart": True, "cell": "transformer", "logits_dropout": 0.2, "layers": 2}
    config = replace(CONFIG, name="modern", batch_size=2, **changes)
    train(TrainOptions(config, machine=machine(own)))
    kind, (slices, _) = kind_of(config, own.run("modern", 0)), split_fold(own, 0, skip_low_information=False)
    assert {kind.dataset(slices, own, augment).views for augment in (kind.augment, "none")} == {2, 0}
    valid = read_predictions(own.run("modern", 0) / "valid.parquet", "")
    infer(InferOptions("modern", split="train", machine=machine(own)))
    again = read_predictions(own.run("modern", 0) / "train.parquet", "").loc[valid.index]
    pd.testing.assert_frame_equal(again, valid, rtol=0, atol=1e-5)


def test_the_layers_read_of_each_slice_what_is_stored_of_it(work):
    slices, _ = split_fold(work, 0, skip_low_information=False)
    dataset = SequenceDataset(slices, work, CONFIG, [source_of(work)])
    assert dataset.width == trained_network(source_of(work)).width
    for row in (0, 1, 40, len(slices) - 1):
        series = read_study(source_of(work).store(work, "none") / f"{slices['series_id'][row]}.slices")
        seen, place, target = dataset[0, row]
        torch.testing.assert_close(seen, series[slices["chunk"][row]])
        assert float(place[1]) == pytest.approx(slices["z"][row], abs=1e-3)
        np.testing.assert_array_equal(target, slices.loc[row, list(LABELS)].to_numpy(np.float32))


def test_of_two_networks_the_embeddings_come_first_then_the_logits(work):
    slices, source = some_studies(work, 1), source_of(work)
    file = source.store(work, "none") / f"{slices['series_id'].iloc[0]}.slices"
    one, both = read_study(file), read_study(file, file)
    embedding, logits = one[:, : -len(LABELS)], one[:, -len(LABELS) :]
    assert torch.equal(both, torch.cat([embedding, embedding, logits, logits], dim=1))


# ---- once, whole, and of these weights ----


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_second_extraction_leaves_the_files_alone(work):
    source = source_of(work)
    before = times(source.store(work, "none"))
    assert set(before) == {f"{name}.slices" for name in read_slices(work, "train")["series_id"]}
    extract(read_slices(work, "train"), [source], "none", machine(work), ALONE)
    assert times(source.store(work, "none")) == before


@pytest.fixture
def changeable(work, tmp_path) -> Work:
    """A working folder whose store is its own, with the embeddings of four studies."""
    own = own_cache(work, tmp_path)
    own.slices(64).unlink()
    shutil.copytree(work.slices(64), own.slices(64))
    extract(some_studies(own, 4), [source_of(work)], "none", machine(own), ALONE)
    return own


@pytest.mark.parametrize("what", ["a slice more", "other pixels", "another place"])
def test_a_series_that_has_changed_is_extracted_anew_and_no_other(what, changeable, work):
    slices, source = some_studies(changeable, 4), source_of(work)
    before, name = times(source.store(changeable, "none")), slices["series_id"].iloc[0]
    of_series, stored = slices["series_id"] == name, Series(changeable.series(64, name))
    hounsfield = stored.read_some(range(len(stored)))
    if what == "a slice more":
        hounsfield = [hounsfield[0], *hounsfield]
        added = slices[of_series].iloc[:1].assign(image_id="ID_new")
        slices = pd.concat([added, slices], ignore_index=True)
        slices.loc[slices["series_id"] == name, "chunk"] = np.arange(len(hounsfield))
    elif what == "other pixels":
        hounsfield[1] = hounsfield[1] + np.int16(5)
    else:
        slices = slices.assign(z=slices["z"].where(~of_series, slices["z"] + 1))
    chunks = [compress_slice(one) for one in hounsfield]
    write_series(changeable.series(64, name), chunks, (64, 64), stored.notes())
    open_series.cache_clear()  # as in the process of another command
    extract(slices, [source], "none", machine(changeable), ALONE)
    after = times(source.store(changeable, "none"))
    assert {file for file in after if after[file] != before[file]} == {f"{name}.slices"}
    seen = np.stack(Series(source.store(changeable, "none") / f"{name}.slices").read_some(range(len(hounsfield))))
    logits = torch.from_numpy(seen.view(np.float16)[:, 0, -len(LABELS) :]).float()
    rows = slices[slices["series_id"] == name].reset_index(drop=True)
    close(logits, trained_network(source)(images_of(changeable, rows)))


def test_where_the_store_is_deleted_embeddings_stay_as_they_are(changeable, work):
    source = source_of(work)
    before = times(source.store(changeable, "none"))
    shutil.rmtree(changeable.slices(64))
    extract(some_studies(changeable, 4), [source], "none", machine(changeable), ALONE)
    assert times(source.store(changeable, "none")) == before


def test_an_interrupted_extraction_goes_on_to_the_same_bytes(work, tmp_path, monkeypatch):
    own, source = own_cache(work, tmp_path), source_of(work)
    slices, store, write = some_studies(own, 6), source_of(work).store(own, "none"), module.write_series

    def fail_after_three(path, *arguments):
        if len(list(path.parent.glob("*.slices"))) == 3:
            raise KeyboardInterrupt
        write(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_series", fail_after_three)
        with pytest.raises(KeyboardInterrupt):
            extract(slices, [source], "none", machine(own), ALONE)
    before = times(store)
    assert len(before) == 3
    extract(slices, [source], "none", machine(own), ALONE)
    assert before.items() <= times(store).items()
    assert {path.stem for path in store.iterdir()} == set(slices["series_id"])
    for path in store.glob("*.slices"):
        assert path.read_bytes() == (source.store(work, "none") / path.name).read_bytes()


def test_a_damaged_or_missing_file_is_named_with_the_repair(work, tmp_path):
    source = source_of(work)
    file = Path(shutil.copy(next(source.store(work, "none").glob("*.slices")), tmp_path))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"{file.name} is damaged: .*; delete it and make it anew with: the same com"):
        read_study(file)
    with pytest.raises(InputError, match=r"no .*absent.slices; make it with: the same command"):
        read_study(tmp_path / "absent.slices")


def test_other_weights_have_another_folder_and_layers_over_them_are_refused(work, tmp_path):
    own = own_cache(work, tmp_path)
    shutil.copytree(work.runs, own.runs)
    before = source_of(own).store(own, "none")
    shutil.rmtree(own.run("base", 0))
    train(TrainOptions(replace(BASE, seed=1), machine=machine(own)))
    after = source_of(own).store(own, "none")
    assert after != before
    with pytest.raises(InputError, match=r"over_base/fold0 was trained on another base; delete it and train that fold"):
        infer(InferOptions(CONFIG.name, machine=machine(own)))
    assert not after.exists()  # it is told before the work


def test_layers_do_not_go_on_over_a_network_that_was_trained_anew(work, tmp_path, monkeypatch):
    own = own_cache(work, tmp_path)
    shutil.copytree(work.run("base", 0), own.run("base", 0))
    options = TrainOptions(CONFIG, machine=machine(own))
    with monkeypatch.context() as cut_short:
        cut_short.setattr(running, "predict", mock.Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(options)
    assert list(own.run(CONFIG.name, 0).glob("checkpoint_*.safetensors"))
    shutil.rmtree(own.run("base", 0))
    train(TrainOptions(replace(BASE, seed=1), machine=machine(own)))
    with pytest.raises(InputError, match=r"over_base.fold0 was begun with another base than there is now; bring"):
        train(options)


def test_a_network_that_is_not_trained_is_named_with_the_command_that_trains_it(work):
    config = replace(CONFIG, name="lost", runs=("base", "b5"))
    message = r"b5.fold0; train it with: python models/train_b5.py --fold 0 --work \S+, or name .* --runs"
    with pytest.raises(InputError, match=message):
        train(TrainOptions(config, machine=machine(work)))


def test_layers_over_layers_are_refused(work):
    config = replace(CONFIG, name="twice", runs=(CONFIG.name,))
    with pytest.raises(InputError, match=r"over_base.fold0 holds no network of single slices; name .* with --runs"):
        train(TrainOptions(config, machine=machine(work)))


def test_an_inference_that_is_cut_short_goes_on_to_the_same_bytes(work, tmp_path, monkeypatch):
    """Studies are predicted whole or not at all."""
    options = InferOptions(CONFIG.name, batch_size=1, weights=work.run(CONFIG.name, 0), checkpoint_minutes=0)
    whole, cut = (own_cache(work, tmp_path / name) for name in ("whole", "cut"))
    output = Path("runs/over_base/fold0/test.parquet")
    infer(replace(options, machine=machine(whole)))
    original = predicting.predict_batches

    def two_batches(*arguments):
        yield from [batch for batch, _ in zip(original(*arguments), range(2), strict=False)]
        raise OSError("the machine went away")

    with monkeypatch.context() as patch:
        patch.setattr(predicting, "predict_batches", two_batches)
        with pytest.raises(OSError, match="went away"):
            infer(replace(options, machine=machine(cut)))
    infer(replace(options, machine=machine(cut)))
    assert (cut.root / output).read_bytes() == (whole.root / output).read_bytes()


# ---- slices that lack something ----


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """A raw folder of eight training studies and one test study."""
    folder = tmp_path_factory.mktemp("raw") / "data"
    write_phantom(folder, studies=8, test_studies=1, image_size=64, seed=1, jobs=1)
    return folder


def prepare_at(data: Path, folder: Path) -> Work:
    prepare(PrepareOptions(data=data, work=folder, image_size=(64,), folds=2, jobs=1))
    return Work(folder)


@torch.no_grad()
def test_slices_without_image_or_label_shift_no_other(raw, work, tmp_path):
    names = read_slices(prepare_at(raw, tmp_path / "whole"), "train")["image_id"]
    data = shutil.copytree(raw, tmp_path / "data")
    for name in names[[0, 7, 8, 60]]:
        file = data / "stage_2_train" / f"{name}.dcm"
        file.write_bytes(file.read_bytes()[:-500])
    labels = (data / "stage_2_train.csv").read_text().splitlines(keepends=True)
    unlabelled = tuple(names[[3, 4, 62]])
    (data / "stage_2_train.csv").write_text("".join(line for line in labels if not line.startswith(unlabelled)))
    own, source = prepare_at(data, tmp_path / "own"), source_of(work)
    table = read_slices(own, "train")
    assert (table["chunk"] == UNREADABLE).sum() == 4
    assert table["any"].isna().sum() == 3
    extract(table, [source], "none", machine(own), ALONE)
    network = trained_network(source)
    for slices in (*split_fold(own, 0, False), table[table["chunk"] != UNREADABLE].reset_index(drop=True)):
        dataset = SequenceDataset(slices, own, CONFIG, [source])
        seen = torch.stack([dataset[0, row][0] for row in range(len(slices))])
        close(seen[:, -len(LABELS) :], network(images_of(own, slices)))

    options = InferOptions(CONFIG.name, split="train", weights=work.run(CONFIG.name, 0), machine=machine(own))
    infer(options)
    assert list(read_predictions(own.run(CONFIG.name, 0) / "train.parquet", "").index) == list(table["image_id"])


def test_the_names_of_the_files_change_no_prediction(raw, work, tmp_path):
    """What a network may know of a slice's place is its position: the order of the files tells nothing."""
    data = shutil.copytree(raw, tmp_path / "data")
    shuffle = random.Random(0)
    for folder in (data / "stage_2_train", data / "stage_2_test"):
        for file in sorted(folder.iterdir()):
            file.rename(folder / f"ID_{shuffle.getrandbits(40):010x}.dcm")
    predictions = []
    for number, folder in enumerate((raw, data)):
        own = prepare_at(folder, tmp_path / str(number))
        weights = work.run(CONFIG.name, 0)
        infer(InferOptions(CONFIG.name, split="train", weights=weights, machine=machine(own)))
        predictions.append(read_predictions(own.run(CONFIG.name, 0) / "train.parquet", ""))
    one, other = predictions
    assert len(one) > 100
    pd.testing.assert_frame_equal(one, other.loc[one.index], rtol=0, atol=1e-6)
