"""The fields of the recipe: each does what it says, and nothing where it is not asked for."""

import json
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fits import ALONE, SMALL, learner_of, seeded_network, weights_of
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.common.config import SequenceConfig, StudyConfig, TrainConfig
from models.common.errors import InputError
from models.common.labels import ANY, LABEL_WEIGHTS, LABELS
from models.common.options import Machine, TrainOptions
from models.common.recipe import ImageRecipe, Recipe
from models.inference.predict import InferOptions, infer
from models.inference.predictions import read_predictions
from models.preprocessing.tables import patients_of_fold, split_fold
from models.train_b0_recurrent import CONFIG as RECURRENT
from models.train_b5_pseudo import CONFIG as PSEUDO
from models.train_sequence import CONFIG as SEQUENCE
from models.train_small import CONFIG
from models.training import mixing
from models.training.augmentation import Augmentation
from models.training.averaging import Average
from models.training.balance import EXPECTED, DrawnBatches, drawn_evenly, expected_draws, weighted
from models.training.groups import layers_of, parameter_groups, rates
from models.training.kinds import kind_of
from models.training.label_noise import label_weights
from models.training.learner import schedule
from models.training.loading import shuffled_batches
from models.training.loss import WeightedLogLoss
from models.training.networks import build_network
from models.training.recurrent import build_study_network
from models.training.run import train
from models.training.run_record import read_run
from models.training.seen import seen_by
from models.training.warping import warp
from models.training.weights import read_weights


def options(work, name, **changes):
    config = replace(CONFIG, name=name, epochs=2, image_size=64, **changes)
    return TrainOptions(config, machine=Machine(work=work.root, device="cpu", workers=0), tta="none")


# ---- the configuration ----


@pytest.mark.parametrize("config", [CONFIG, PSEUDO, RECURRENT, SEQUENCE], ids=lambda config: config.name)
def test_a_run_of_an_older_version_has_no_recipe(config):
    own = {field.name for kind in (Recipe, ImageRecipe) for field in fields(kind)}
    own |= {"pooling", "head_dropout", "drop_path", "checkpointing"}
    older = {name: value for name, value in config.to_json().items() if name not in own}
    assert type(config).from_json(older) == config
    assert len(older) < len(config.to_json())


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 1.0},
        {"ema": -0.1},
        {"warm_up": 1.0},
        {"schedule": "cosin"},
        {"label_smoothing": 1.5},
        {"head_lr": 0.0},
        {"layer_decay": 0.0},
        {"layer_decay": 1.1},
        {"mixup": -1.0},
        {"cutmix": -1.0},
        {"balanced": -1},
        {"positives": 0.0},
        {"without": -1},
        {"noisy_labels": CONFIG.name},
        {"pooling": "max"},
        {"head_dropout": 1.0},
        {"drop_path": -0.1},
    ],
    ids=str,
)
def test_a_value_that_cannot_be_names_its_flag(changes):
    (name,) = changes
    with pytest.raises(InputError, match=f"repair --{name.replace('_', '-')}"):
        replace(CONFIG, **changes)


@pytest.mark.parametrize("changes", [{"mixup": 0.4}, {"cutmix": 1.0}, {"balanced": 4}, {"positives": 2.0}])
def test_studies_are_neither_mixed_nor_drawn_singly(changes):
    with pytest.raises(InputError, match="is for networks of single slices"):
        replace(RECURRENT, **changes)


def test_every_kind_has_what_every_kind_can_do():
    assert {field.name for field in fields(Recipe)} <= set(SEQUENCE.to_json())
    assert issubclass(StudyConfig, ImageRecipe)
    assert issubclass(TrainConfig, ImageRecipe)
    assert not issubclass(SequenceConfig, ImageRecipe)


# ---- the average of the weights ----


def test_the_average_is_torchs_but_for_its_first_steps():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    ours = Average(network, 0.9)
    theirs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    theirs.update_parameters(network)
    for _ in range(5):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_()
        network(torch.rand(4, 1, 5, 5))
        ours.move(0.9)
        theirs.update_parameters(network)
    for name, value in theirs.module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(ours.averaged.state_dict()[name], value)
    assert int(ours.averaged[1].num_batches_tracked) == 5


class Trail(Callback):
    """The weights of each step, from the first on, and those of each validation."""

    def before_fit(self) -> None:
        self.steps, self.validated = [weights_of(self.learn.network)], []

    def after_batch(self) -> None:
        (self.steps if self.training else self.validated).append(weights_of(self.learn.model))


def test_validations_see_the_average_and_steps_are_those_without_it(few):
    """What is trained is the same; what is validated is the average of all its steps, moved here by hand."""
    plain = learner_of(few, SMALL, seeded_network())
    plain.fit(2)
    learner = learner_of(few, SMALL, seeded_network())
    average, trail = Average(learner.network, 0.7), Trail()
    learner.add_cbs([average, trail])
    learner.fit(2)
    torch.testing.assert_close(weights_of(plain.network), weights_of(learner.network), rtol=0, atol=0)
    expected = trail.steps[0].double()
    for number, weights in enumerate(trail.steps[1:], start=1):
        decay = min(0.7, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * weights.double()
    assert len(trail.steps) == 9
    torch.testing.assert_close(trail.validated[-1].double(), expected, rtol=1e-5, atol=1e-7)
    assert not torch.equal(trail.validated[-1], trail.steps[-1])


def test_the_last_average_is_kept_whatever_an_earlier_epoch_scored(few, monkeypatch, capsys):
    from models.training.callbacks import History

    after_epoch, weights = History.after_epoch, []

    def worse_at_last(self) -> None:
        if self.epoch == 1:
            self.learn.final_record[1] = 9.0
        after_epoch(self)
        weights.append({name: value.clone() for name, value in self.model.state_dict().items()})

    monkeypatch.setattr(History, "after_epoch", worse_at_last)
    asked = options(few, "averaged", ema=0.8)
    train(asked)
    kept = read_weights(asked.folder / "model.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in weights[-1].items())
    record = read_run(asked.folder)
    assert "best_epoch" not in record.results
    assert record.kept_epoch == 2
    assert "which was not chosen" in capsys.readouterr().out


# ---- schedules and rates ----


def test_a_cosine_rises_in_a_line_and_falls_to_nothing(few):
    learner = learner_of(few, replace(SMALL, schedule="cosine", warm_up=0.2), seeded_network())
    rate = schedule(learner)["lr"]
    peak = SMALL.max_lr
    assert set(schedule(learner)) == {"lr"}
    assert rate(0.0) == pytest.approx(peak / 100)
    assert rate(0.1) == pytest.approx(peak * (0.01 + 0.99 / 2))
    assert rate(0.2) == pytest.approx(peak)
    assert rate(0.6) == pytest.approx(peak / 2)
    assert rate(1.0) == pytest.approx(0, abs=1e-12)
    without = schedule(learner_of(few, replace(SMALL, schedule="cosine", warm_up=0.0), seeded_network()))["lr"]
    assert without(0.0) == pytest.approx(peak)


@pytest.mark.parametrize("network", ["small", "efficientnet-b0", "resnet50", "efficientnet-lite0", "timm/resnet10t"])
def test_rates_fall_from_the_head_to_the_stem(network):
    config = replace(CONFIG, network=network, layer_decay=0.9, head_lr=3 * CONFIG.max_lr)
    built = build_network(config)
    of_name = rates(config, built)
    assert set(of_name) == {name for name, _ in built.named_parameters()}
    assert of_name["head.weight"] == pytest.approx(3)
    layers = layers_of(built.backbone)
    assert set(layers) == {name for name, _ in built.backbone.named_parameters()}
    first, last = next(iter(layers)), list(layers)[-1]
    assert layers[first] == 0 < max(layers.values()) == layers[last]
    for name, layer in layers.items():
        assert of_name[f"backbone.{name}"] == pytest.approx(0.9 ** (max(layers.values()) + 1 - layer))
    groups = parameter_groups(config, built)
    grouped = [id(parameter) for group in groups for parameter in group.parameters]
    assert sorted(grouped) == sorted(id(parameter) for parameter in built.parameters())
    assert [group.rate for group in groups] == sorted(group.rate for group in groups)


@pytest.mark.parametrize("pooling", ["gem", "attention"])
@pytest.mark.parametrize("network", ["efficientnet-lite0", "timm/resnet10t"])
def test_a_pool_changes_no_rate_of_what_lies_below_it(network, pooling):
    config = replace(CONFIG, network=network, layer_decay=0.5)
    due = rates(config, build_network(config))
    learnt = replace(config, pooling=pooling)
    of_name = rates(learnt, build_network(learnt))
    assert {name: rate for name, rate in of_name.items() if name in due} == due
    assert {rate for name, rate in of_name.items() if name not in due} == {1.0}


def test_recurrent_layers_and_a_learnt_pool_are_new():
    config = replace(RECURRENT, network="efficientnet-lite0", pooling="gem", head_lr=10 * RECURRENT.max_lr)
    of_name = rates(config, build_study_network(config))
    new = {name for name, rate in of_name.items() if rate == 10}
    assert new == {name for name in of_name if not name.startswith("slices.backbone.") or "global_pool" in name}
    assert any("global_pool" in name for name in new)
    assert set(of_name.values()) == {1.0, 10}


def test_groups_follow_the_schedule_each_at_its_rate(few):
    config = replace(SMALL, head_lr=4 * SMALL.max_lr)
    learner = learner_of(few, config, seeded_network())
    assert schedule(learner)["lr"](0.25) == pytest.approx([SMALL.max_lr, 4 * SMALL.max_lr])
    plain = learner_of(few, SMALL, seeded_network())
    assert schedule(plain)["lr"](0.25) == pytest.approx(SMALL.max_lr)  # one number, as before


# ---- targets ----


def test_smoothing_moves_targets_to_a_half_in_training():
    logits, target = torch.randn(5, 6), (torch.rand(5, 6) < 0.5).float()
    expected = WeightedLogLoss()(logits, 0.9 * target + 0.05)
    torch.testing.assert_close(WeightedLogLoss(0.1)(logits, target), expected)


@pytest.mark.parametrize("weighted_too", [False, True])
def test_a_mixed_target_has_the_mean_of_both_losses(weighted_too):
    logits, target = torch.randn(5, 6), (torch.rand(5, 6) < 0.5).float()
    if weighted_too:
        target = torch.stack([target, torch.rand(5, 6)], dim=1)
        target[0, 1] = target[1, 1] = 0
    loss = WeightedLogLoss()
    expected = 0.3 * loss(logits, target) + 0.7 * loss(logits, target.roll(1, 0))
    torch.testing.assert_close(loss(logits, mixing.mixed_target(target, 0.3)), expected)


def test_mixup_blends_each_slice_with_another():
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    mixed, target = mixing.blend(images, torch.eye(6)[:4], 0.75)
    torch.testing.assert_close(mixed, 0.75 * images.float() + 0.25 * images.roll(1, 0).float())
    torch.testing.assert_close(target[1], torch.tensor([0.25, 0.75, 0, 0, 0, 0]))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_cutmix_labels_a_slice_by_what_is_left_of_it(share):
    images = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 20, 30)
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, target = mixing.cut_in(images, torch.eye(6)[:4], share)
        left = (mixed == images).float().mean((1, 2, 3))
        torch.testing.assert_close(left, target.diagonal())
        torch.testing.assert_close(target.sum(1), torch.ones(4))
        assert mixed.dtype == torch.uint8


def test_one_of_both_is_drawn_for_each_batch_and_none_without(monkeypatch):
    assert mixing.mixing(CONFIG) is mixing.mixing(SEQUENCE) is None
    drawn = []
    monkeypatch.setattr(mixing, "blend", lambda *_: drawn.append("mixup"))
    monkeypatch.setattr(mixing, "cut_in", lambda *_: drawn.append("cutmix"))
    torch.manual_seed(0)
    for changes in ({"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0}):
        mix = mixing.mixing(replace(CONFIG, **changes))
        for _ in range(20):
            mix(torch.zeros(2, 1, 2, 2), torch.zeros(2, 6))
    assert set(drawn[:20]) == {"mixup"}
    assert set(drawn[20:40]) == {"cutmix"}
    assert set(drawn[40:]) == {"mixup", "cutmix"}


def test_a_share_is_from_beta():
    torch.manual_seed(0)
    shares = np.array([mixing.draw_share(0.2) for _ in range(2000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.05)
    assert shares.var() == pytest.approx(0.25 / 1.4, rel=0.1)  # of Beta(a, a): 1 / (4 (2a + 1))


def test_batches_are_mixed_in_training_alone(few, monkeypatch):
    calls = []

    def mix(images, target):
        calls.append(len(images))
        return images, target

    monkeypatch.setattr("models.training.steps.mixing", lambda _: mix)
    learner = learner_of(few, replace(SMALL, accumulate=3), seeded_network())
    learner.fit(1)
    assert calls == [12] * 4  # whole batches of 48 slices, each once


# ---- which slices ----


@pytest.fixture(scope="module")
def slices(prepared):
    return split_fold(prepared, 0, skip_low_information=False)[0]


@pytest.mark.parametrize(("balanced", "positives"), [(5, 1.0), (5, 3.0), (0, 2.0), (1, 1.0), (1000, 1.0)])
def test_an_epoch_draws_as_often_as_is_expected_and_so_many_of_a_study(slices, balanced, positives):
    config = replace(CONFIG, balanced=balanced, positives=positives, batch_size=1)
    expected = expected_draws(slices, config)
    study, length = np.unique(slices["series_id"], return_inverse=True)[1], slices.groupby("series_id").size()
    batches = DrawnBatches(expected, study, 1, 0, 0, 1)
    counts = np.zeros(len(slices))
    for epoch in range(400):
        batches.epoch = epoch
        times = np.bincount(batches.rows().ravel(), minlength=len(slices))
        assert (np.bincount(study, times) == np.minimum(length, balanced or 10**9)).all()
        assert (np.abs(times - expected) < 1).all()
        counts += times
    assert len(batches) == round(expected.sum())
    assert counts / 400 == pytest.approx(expected, abs=6 / np.sqrt(400) / 2)
    any_bleed = slices[LABELS[ANY]].to_numpy() == 1
    within = [
        expected[(study == s) & any_bleed].mean() / expected[(study == s) & ~any_bleed].mean()
        for s in set(study)
        if any_bleed[study == s].any() and not any_bleed[study == s].all()
    ]
    assert within == pytest.approx([positives] * len(within))


def test_weights_make_the_expected_loss_that_of_all_slices(slices):
    drawn = drawn_evenly(slices, replace(CONFIG, balanced=5, positives=3.0))
    loss = np.random.default_rng(0).random((len(slices), 6))
    expected = drawn[EXPECTED].to_numpy()[:, None] * drawn[list(LABEL_WEIGHTS)].to_numpy() * loss
    assert expected.sum() / drawn[EXPECTED].sum() == pytest.approx(loss.mean(0).sum(), rel=1e-5)
    assert drawn_evenly(slices, CONFIG) is slices


def test_draws_differ_from_epoch_to_epoch_and_their_batches_are_those_of_all_processes(slices, few):
    config = replace(CONFIG, balanced=4)
    kind = kind_of(config, few.run("x", 0))
    table = kind.training_slices(split_fold(few, 0, skip_low_information=False)[0], few, 0)
    dataset = kind.dataset(table, few, "none")
    batches = shuffled_batches(dataset, 4, 0, ALONE)
    assert isinstance(batches, DrawnBatches)
    first = batches.rows()
    batches.epoch = 1
    assert sorted(first.ravel()) != sorted(batches.rows().ravel())
    _, target = dataset[0, 0]
    assert target.shape == (2, 6)


def test_weights_that_are_there_already_are_multiplied(slices):
    twice = weighted(weighted(slices, np.full((len(slices), 1), 0.5)), np.full((len(slices), 6), 0.5))
    assert set(twice[list(LABEL_WEIGHTS)].to_numpy().ravel()) == {0.25}


# ---- labels that are doubted ----


def test_labels_count_less_the_surer_a_network_is_that_they_are_wrong():
    label, said = np.array([[1.0] * 6, [0.0] * 6]), np.array([[0.9, 0.5, 0.25, 0.0, np.nan, 1.0]] * 2)
    assert label_weights(label, said).tolist() == [[1, 1, 0.5, 0, 1, 1], [pytest.approx(0.2), 1, 1, 1, 1, 0]]


def test_labels_are_judged_by_whom_the_fold_has_no_part_in(few):
    machine = {"machine": Machine(work=few.root, device="cpu", workers=0), "tta": "none"}
    judged = replace(CONFIG, name="judged", epochs=1, noisy_labels="judge")
    asked = TrainOptions(judged, 0, **machine)
    with pytest.raises(InputError, match=r"no fold of judge .*--name judge .*--without 0"):
        train(asked)
    for name, without in (("judge", 0), ("unsafe", None)):
        config = replace(CONFIG, name=name, epochs=1, without=without)
        train(TrainOptions(config, 1, **machine))
        known = seen_by(few.run(name, 1)).patients & set(patients_of_fold(few, 0))
        assert bool(known) == (without is None)
    with pytest.raises(InputError, match=r"has trained on \d+ of \d+ patients whom fold 0"):
        train(replace(asked, config=replace(judged, name="y", noisy_labels="unsafe")))
    train(asked)
    assert read_run(few.run("judged", 0)).sources["judge/fold1/valid.parquet"]
    table = kind_of(judged, few.run("judged", 0)).training_slices(
        split_fold(few, 0, skip_low_information=False)[0], few, 0
    )
    said = read_predictions(few.run("judge", 1) / "valid.parquet", "")
    inside = table["image_id"].isin(said.index)
    assert (table.loc[~inside, list(LABEL_WEIGHTS)] == 1).all(axis=None)
    assert (table.loc[inside, list(LABEL_WEIGHTS)] < 1).any(axis=None)
    with pytest.raises(InputError, match="no fold 9"):
        train(TrainOptions(replace(CONFIG, name="z", without=9), 0, **machine))


# ---- strong augmentation ----


def strong_draws(count=2000, **changes):
    augmentation = Augmentation(replace(CONFIG, augment="strong", **changes), "strong")
    return [augmentation.draw((0, 0, row)) for row in range(count)]


def test_a_strong_draw_rotates_and_scales_at_will_and_each_part_happens_once():
    draws = strong_draws()
    affine = [draw.geometry.affine for draw in draws]
    assert all(draw.geometry.grid is None and draw.geometry.quarters == 0 for draw in draws)
    assert np.histogram([one.rotation for one in affine], bins=4, range=(-180, 180))[0] == pytest.approx(500, abs=80)
    scales = np.array([one.scale for one in affine])
    assert (scales[:, 0] == scales[:, 1]).all()
    assert (scales.min(), scales.max()) == pytest.approx((0.8, 1.2), abs=0.01)
    parts = [
        [draw.geometry.horizontal for draw in draws],
        [draw.geometry.vertical for draw in draws],
        [draw.gamma is not None for draw in draws],
        [draw.appearance.blur > 0 for draw in draws],
        [draw.appearance.white > 0 for draw in draws],
        [len(draw.appearance.cuts) > 0 for draw in draws],
    ]
    assert np.mean(parts, axis=1) == pytest.approx(0.5, abs=0.05)
    assert {(draw.appearance.reduction, draw.appearance.correlated) for draw in draws} == {(1.0, 0.0)}


def test_a_strong_draw_moves_windows_by_a_tenth_of_their_width_or_by_the_jitter():
    window = CONFIG.channels[0].window
    for changes, largest in (({}, 0.1), ({"window_jitter": 0.3}, 0.3)):
        moved = [abs(draw.windows[0].center - window.center) / window.width for draw in strong_draws(**changes)]
        assert max(moved) == pytest.approx(largest, abs=0.01)


def test_a_strong_sample_is_interpolated_once(slices, prepared, monkeypatch):
    calls = []
    monkeypatch.setattr("models.training.dataset.warp", lambda *given: calls.append(given) or warp(*given))
    dataset = kind_of(replace(CONFIG, augment="strong"), prepared.run("x", 0)).dataset(slices, prepared, "strong")
    first, again = dataset[0, 3][0], dataset[0, 3][0]
    assert len(calls) == 2
    assert torch.equal(first, again)
    assert not torch.equal(first, dataset[1, 3][0])


# ---- all of it ----


def test_a_fold_with_all_of_it_is_trained_and_predicts(few):
    changes = {
        "ema": 0.9,
        "schedule": "cosine",
        "layer_decay": 0.9,
        "head_lr": 1e-2,
        "mixup": 0.4,
        "cutmix": 1.0,
        "label_smoothing": 0.02,
        "balanced": 12,
        "positives": 2.0,
        "augment": "strong",
        "batchnorm_batches": 2,
    }
    asked = options(few, "all_of_it", **changes)
    train(asked)
    infer(InferOptions("all_of_it", machine=asked.machine, tta="none"))
    history = pd.read_csv(asked.folder / "history.csv")
    assert history["valid_loss"].notna().all()
    noted = json.loads((asked.folder / "config.json").read_text())["config"]
    assert changes.items() <= noted.items()
    assert (asked.folder / "test.parquet").is_file()
