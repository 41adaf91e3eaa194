"""Every number of the page is the number of what it names: read from the HTML, and counted anew from the files."""

import numpy as np
import pandas as pd
import pytest
from report_pages import Page, pixels, scored
from scipy.stats import beta
from sklearn.metrics import (
    average_precision_score,
    log_loss,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from models.common.labels import ANY, LABELS, SUBTYPES
from models.preprocessing.store import Series
from models.preprocessing.windows import BONE, BRAIN, SUBDURAL, apply_window
from models.reporting import figures
from models.reporting.figures import to_svg
from models.reporting.resampling import (
    auc_interval,
    mean_interval,
    resample_auc,
    share_interval,
    steps_of,
    to_interval,
)
from models.reporting.tables import NO_BLEED, calibrate, score_labels
from models.training.scoring import WEIGHTED

WEIGHTS = [1, 1, 1, 1, 1, 2]
SCORES = "Scores of each label"


class Facts:
    """The files that a page is about, read without the project's own functions."""

    def __init__(self, plain, metadata: pd.DataFrame) -> None:
        files = plain.parent.glob("runs/small/fold*/valid.parquet")
        predictions = pd.concat(map(pd.read_parquet, files)).set_index("image_id")
        self.slices = metadata
        self.patients = metadata["patient_id"].to_numpy()
        self.target = metadata[list(LABELS)].to_numpy().astype(int)
        self.probability = predictions.loc[metadata["image_id"], list(LABELS)].to_numpy().astype(float)

    def losses(self, rows=slice(None)) -> list[float]:
        pairs = zip(self.target[rows].T, self.probability[rows].T, strict=True)
        return [log_loss(target, probability, labels=[0, 1]) for target, probability in pairs]

    def priors(self, rows=slice(None)) -> list[float]:
        return [log_loss(column, np.full(len(column), column.mean()), labels=[0, 1]) for column in self.target[rows].T]


@pytest.fixture(scope="module")
def facts(plain, metadata) -> Facts:
    return Facts(plain, metadata)


@pytest.fixture(scope="module")
def page(plain) -> Page:
    return Page(plain.read_text())


def test_losses_and_the_priors_are_scikit_learns(page, facts):
    for column, losses in (("log loss", facts.losses()), ("the prior's", facts.priors())):
        told = page.column(SCORES, column)
        assert told[WEIGHTED] == f"{np.average(losses, weights=WEIGHTS):.4f}"
        assert [told[label] for label in LABELS] == [f"{loss:.4f}" for loss in losses]
    assert page.key[WEIGHTED] == page.column(SCORES, "log loss")[WEIGHTED]
    assert page.key["the prior's"] == page.column(SCORES, "the prior's")[WEIGHTED]


def test_each_label_has_its_own_rank(page, facts):
    pairs = list(zip(facts.target.T, facts.probability.T, strict=True))
    aucs = [f"{roc_auc_score(*pair):.3f}" for pair in pairs]
    assert len(set(aucs)) == len(aucs)  # else a wrong label might go unseen
    assert [page.column(SCORES, "AUC")[label] for label in LABELS] == aucs
    assert page.key["AUC of any"] == aucs[ANY]
    told = page.column(SCORES, "average precision")
    assert [told[label] for label in LABELS] == [f"{average_precision_score(*pair):.3f}" for pair in pairs]
    shares = page.column(SCORES, "chance's")
    assert [shares[label] for label in LABELS] == [f"{target.mean():.3f}" for target, _ in pairs]
    counts = page.column(SCORES, "positive slices")
    assert [counts[label] for label in LABELS] == [f"{target.sum():,}" for target, _ in pairs]


@pytest.mark.parametrize(("middle", "interval"), [("log loss", "95 % interval"), ("AUC", "its 95 % interval")])
def test_an_interval_runs_from_low_to_high_around_its_number(page, middle, interval):
    for label in LABELS:
        low, high = map(float, page.column(SCORES, interval)[label].split(" - "))
        assert low < float(page.column(SCORES, middle)[label]) < high


def test_what_is_counted_at_the_top_is_there(page, facts):
    assert page.key["slices"] == f"{len(facts.slices):,}"
    assert page.key["studies"] == f"{facts.slices['study_id'].nunique():,}"


def test_types_alone_stand_in_rows_and_labels_in_columns(page, facts):
    told, named = page.tables["Mean probability by true type"], page.tables["Type named by true type"]
    assert told[0][2:] == list(LABELS)
    assert named[0][2:] == list(SUBTYPES)
    shares = facts.target[:, :ANY].mean(axis=0)
    odds = facts.probability / (1 - facts.probability)
    taken = (odds[:, :ANY] / (shares / (1 - shares))).argmax(axis=1)
    for number, name in enumerate([*SUBTYPES, NO_BLEED]):
        alone = facts.target[:, :ANY].sum(axis=1) == (name != NO_BLEED)
        chosen = alone & (facts.target[:, min(number, ANY)] == (name != NO_BLEED))
        if chosen.any():
            means = facts.probability[chosen].mean(axis=0)
            assert told[number + 1] == [name, f"{chosen.sum():,}", *(f"{mean:.2f}" for mean in means)]
        if chosen.any() and name != NO_BLEED:
            parts = [(taken[chosen] == other).mean() for other in range(ANY)]
            assert named[number + 1] == [name, f"{chosen.sum():,}", *(f"{part:.2f}" for part in parts)]


def test_a_subgroup_stands_beside_the_prior_of_that_very_group(page, facts):
    table = page.tables["Scores of subgroups"]
    head = table[0]
    thirds = {row[0].split(" few")[0]: row for row in table if "third" in row[0]}
    assert len(thirds) == 3
    z = facts.slices["z"]
    series = facts.slices.groupby("series_id")["z"]
    height = (z - series.transform("min")) / (series.transform("max") - series.transform("min"))
    chosen = (height < 1 / 3).to_numpy()
    row = dict(zip(head, thirds["lower third"], strict=True))
    assert row["slices"] == f"{chosen.sum():,}"
    assert row["with hemorrhage"] == f"{facts.target[chosen, ANY].sum():,}"
    assert row["weighted log loss"] == f"{np.average(facts.losses(chosen), weights=WEIGHTS):.4f}"
    assert row["the prior's"] == f"{np.average(facts.priors(chosen), weights=WEIGHTS):.4f}"
    assert row["AUC of any"] == f"{roc_auc_score(facts.target[chosen, ANY], facts.probability[chosen, ANY]):.3f}"


def on_the_curve(axes, number: int) -> np.ndarray:
    (line,) = (line for line in axes.lines if line.get_label() == LABELS[number])
    return np.asarray(line.get_xydata())


def test_curves_are_scikit_learns_on_their_axes(facts):
    roc = figures.plot_roc(facts.target, facts.probability).axes[0]
    precision = figures.plot_precision(facts.target, facts.probability).axes[0]
    assert (roc.get_xlabel()[:12], roc.get_ylabel()[:5]) == ("false alarms", "found")
    assert (precision.get_xlabel()[:6], precision.get_ylabel()[:9]) == ("recall", "precision")
    for number in range(len(LABELS)):
        pair = facts.target[:, number], facts.probability[:, number]
        alarms, found, _ = roc_curve(*pair)
        assert set(map(tuple, on_the_curve(roc, number))) <= set(zip(alarms, found, strict=True))
        right, recall, _ = precision_recall_curve(*pair)
        assert set(map(tuple, on_the_curve(precision, number))) <= set(zip(recall, right, strict=True))
    chance = [line.get_xydata().tolist() for line in roc.lines if line.get_label() == "_chance"]
    assert chance == [[[0, 0], [1, 1]]]


def test_each_figure_stands_where_it_is_called_by_its_name(page, facts):
    target, probability = facts.target.astype(np.float32), facts.probability.astype(np.float32)  # as in the files
    drawn = {
        "ROC curves": to_svg(figures.plot_roc(target, probability)),
        "Precision-recall curves": to_svg(figures.plot_precision(target, probability)),
    }
    for number, label in enumerate(LABELS):
        points = calibrate(target[:, number], probability[:, number], facts.patients)
        drawn[f"Calibration of {label}:"] = to_svg(figures.plot_calibration(label, points))
    for name, source in drawn.items():
        (figure,) = (figure for figure in page.figures if figure.alt.startswith(name))
        assert figure.source == source, name


def test_calibration_has_predictions_below_and_shares_beside(page, facts):
    for number, label in enumerate(LABELS):
        target, probability = facts.target[:, number], facts.probability[:, number]
        points = calibrate(target, probability, facts.patients)
        assert (points["predicted"] @ points["slices"]) / len(target) == pytest.approx(probability.mean())
        axes = figures.plot_calibration(label, points).axes[0]
        (line,) = (line for line in axes.lines if line.get_marker() == "o")
        np.testing.assert_allclose(line.get_xydata(), points[["predicted", "observed"]])
        assert (axes.get_xlabel()[:9], axes.get_ylabel()[:5], axes.get_title()) == ("predicted", "share", label)
        error = np.abs(points["observed"] - points["predicted"]) @ points["slices"] / len(target)
        (figure,) = (figure for figure in page.figures if figure.alt.startswith(f"Calibration of {label}:"))
        told = f"mean prediction {probability.mean():.1%}, slices with it {target.mean():.1%}, error {error:.1%}"
        assert figure.caption == told


def test_shares_of_the_prior_are_drawn_beside_the_name_of_their_label(facts, metadata):
    table = score_labels(scored(metadata))
    axes = figures.plot_losses(table).axes[0]
    names = {round(y): label.get_text() for y, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)}
    (line,) = (line for line in axes.lines if line.get_marker() == "o")
    for x, y in line.get_xydata():
        row = table.loc[names[round(y)]]
        assert x == pytest.approx(row["log loss"] / row["prior's"])
        assert row["of prior low"] < x < row["of prior high"]


def test_a_case_shows_its_slice_its_neighbours_and_its_windows(page, facts, prepared):
    windows = {"brain": BRAIN, "subdural": SUBDURAL, "bone": BONE}
    slices = facts.slices.set_index("image_id")
    looked_at = 0
    for article in page.articles:
        row = slices.loc[article.heading.split()[0]]
        store = Series(prepared.series(64, row["series_id"]))
        for figure in article.figures:
            if not figure.source.startswith("data:image/png") or "heat" in figure.caption:
                continue
            step = -1 if "below" in figure.caption else 1 if "above" in figure.caption else 0
            window = windows[figure.caption.rsplit(" ", 2)[-2]]
            assert figure.caption.endswith(f"{window.center}/{window.width}")
            expected = apply_window(store.read(int(row["chunk"]) + step), window)
            np.testing.assert_array_equal(pixels(figure.source), expected)
            looked_at += 1
    assert looked_at > 20


def test_a_case_tells_its_labels_and_probabilities(page, facts):
    place = {image: row for row, image in enumerate(facts.slices["image_id"])}
    for article in page.articles:
        row = place[article.heading.split()[0]]
        labels, true, predicted = map(list, zip(*article.table, strict=True))
        assert labels == ["label", *LABELS]
        assert true == ["true", *("yes" if value else "no" for value in facts.target[row])]
        assert predicted == ["predicted", *(f"{value:.3f}" for value in facts.probability[row])]
        assert article.heading.endswith(f"any {facts.probability[row, ANY]:.3f}")
        if article.kind.startswith("False"):
            assert true[-1] == ("yes" if article.kind == "False negatives" else "no")


def test_the_interval_of_a_mean_holds_the_truth_of_few_patients_too():
    """Of 200 means over the slices of seven patients."""
    random, held = np.random.default_rng(0), 0
    patients = np.repeat(np.arange(7), 5)
    for _ in range(200):
        low, high = mean_interval(random.normal(size=7)[patients] + 0.3 * random.normal(size=35), patients)
        held += low <= 0 <= high
    assert held / 200 > 0.87  # .82 of percentiles that many patients would have
    assert np.isnan(mean_interval(np.arange(5), np.zeros(5))).all()


@pytest.mark.parametrize("value", [0, 1])
def test_what_few_patients_agree_on_is_not_certain(value):
    """Three patients with blood and six without, of two slices each: no draw differs from another."""
    patients = np.repeat(np.arange(9), 2)
    target = (patients < 3).astype(float)
    low, high = auc_interval(target, np.abs(1 - value - target), patients)
    likely = beta(0.5 + 3 * value, 0.5 + 3 * (1 - value)).interval(0.95)  # Jeffreys' of three
    assert (low, high) == pytest.approx((min(likely[0], value), max(likely[1], value)))
    assert share_interval(target[:6] == value, patients[:6]) == pytest.approx([low, high])
    assert np.isnan(share_interval(target[:2] == value, patients[:2])).all()
    assert np.isnan(auc_interval(target[4:], target[4:], patients[4:])).all()


def test_draws_rank_as_scikit_learn_does():
    generator = np.random.default_rng(0)
    patients = generator.integers(40, size=600)
    target = (generator.random(600) < 0.3).astype(float)
    probability = np.round(generator.random(600) * 0.5 + 0.3 * target, 2)  # with ties
    drawn = resample_auc(target, probability, patients, draws=20)
    again = np.random.default_rng(0)
    for value in drawn:
        weights = np.bincount(again.integers(40, size=40), minlength=40)[patients]
        assert value == pytest.approx(roc_auc_score(target, probability, sample_weight=weights))
    assert to_interval(drawn).shape == (2,)


@pytest.mark.torture
def test_the_interval_of_an_auc_holds_that_of_all_patients():
    generator = np.random.default_rng(1)

    def draw(patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        bleeds, liked = generator.random(patients) < 0.4, generator.normal(0, 1, patients)
        patient = np.repeat(np.arange(patients), 30)
        target = (bleeds[patient] & (generator.random(len(patient)) < 0.4)).astype(float)
        return target, generator.normal(1.5 * target + liked[patient], 1), patient

    target, said, _ = draw(30_000)
    truth = roc_auc_score(target, said)
    intervals = [auc_interval(*draw(100)) for _ in range(500)]
    assert 0.92 <= np.mean([low <= truth <= high for low, high in intervals]) <= 0.98


def test_many_probabilities_are_put_into_steps_of_equal_size():
    probability = np.random.default_rng(0).beta(0.1, 1, 50_000)
    step = steps_of(probability)
    order = np.argsort(probability, kind="stable")
    assert (np.diff(step[order]) >= 0).all()
    assert np.bincount(step).max() <= 51
    target = (np.random.default_rng(1).random(50_000) < probability).astype(int)
    assert roc_auc_score(target, step) == pytest.approx(roc_auc_score(target, probability), abs=1e-4)


def test_a_single_patient_with_a_label_has_no_interval():
    target, patients = np.array([1, 1, 0, 0, 0]), np.array(["a", "a", "b", "c", "d"])
    assert np.isnan(to_interval(resample_auc(target, np.arange(5) / 5, patients))).all()
