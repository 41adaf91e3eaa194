"""What the page says of studies, of bleeds by size, of certainty and of heat: counted anew, with scikit-learn."""

import numpy as np
import pandas as pd
import pytest
import torch
from report_pages import Page, copy_of, pixels, predict, scored, write_run
from sklearn.metrics import average_precision_score, confusion_matrix, log_loss, roc_auc_score, roc_curve

from models.common.config import TrainConfig
from models.common.files import write_parquet
from models.common.labels import ANY, LABELS
from models.inference.heat import heat_maps, view_probabilities
from models.preprocessing.store import Series
from models.preprocessing.tables import read_slices
from models.preprocessing.windows import BRAIN, apply_window
from models.report import ReportOptions, report
from models.reporting import figures, studies
from models.reporting.certainty import at_coverages, cover, find_dispute, uncertainties
from models.reporting.looks import overlay
from models.reporting.studies import LEVELS, PREVALENCES, join_studies, operate, predict_values
from models.reporting.subgroups import extents, group_slices, score_sizes
from models.reporting.subject import Scored, read_subject
from models.reporting.tables import score_labels
from models.train_small import CONFIG
from models.training.networks import build_network
from models.training.run_record import save_config
from models.training.weights import save_weights

SMALL = CONFIG.image_size


def many_studies(count: int = 200) -> Scored:
    """Studies of two slices each, in which blood is likelier to be told than not."""
    generator = np.random.default_rng(0)
    target = (generator.random((count, 6)) < 0.3).repeat(2, axis=0).astype(float)
    target[:, ANY] = target[:, :ANY].max(axis=1)
    probability = np.clip(generator.normal(0.3 + 0.3 * target, 0.2), 0.01, 0.99)
    names = [f"s{number}" for number in range(count)]
    table = pd.DataFrame({"study_id": names, "patient_id": names}).loc[np.arange(count).repeat(2)]
    return Scored(table.assign(image_id=range(2 * count)).reset_index(drop=True), target, probability)


def test_a_study_has_what_one_of_its_slices_has(metadata):
    rows = scored(metadata)
    studies, calibrated = join_studies(rows)
    highest = metadata.assign(**dict(zip(LABELS, rows.probability.T, strict=True))).groupby("study_id")[list(LABELS)]
    np.testing.assert_array_equal(studies.probability, highest.max().loc[studies.slices["study_id"]])
    assert calibrated.target is studies.target
    assert len(studies.slices) == metadata["study_id"].nunique()
    by_study = metadata.groupby("study_id")[list(LABELS)].max()
    np.testing.assert_array_equal(studies.target, by_study.loc[studies.slices["study_id"]])
    patients = metadata.drop_duplicates("study_id").set_index("study_id")["patient_id"]
    assert studies.slices["patient_id"].tolist() == patients[studies.slices["study_id"]].tolist()


def test_studies_are_calibrated_by_others():
    slices = many_studies()
    studies = join_studies(slices).calibrated
    highest = pd.DataFrame(slices.probability).groupby(np.arange(200).repeat(2)).max().to_numpy()
    loss = log_loss(studies.target[:, 0], studies.probability[:, 0])
    assert loss < log_loss(studies.target[:, 0], highest[:, 0]) - 0.05
    of_types = studies.probability.mean(axis=0)[:ANY]
    assert of_types == pytest.approx(studies.target.mean(axis=0)[:ANY], abs=0.03)
    assert (studies.probability[:, ANY] >= studies.probability[:, :ANY].max(axis=1)).all()
    lied = slices.target.copy()
    lied[:2] = 1 - lied[:2]  # of the first study, which does not change what is said of it
    again = join_studies(slices._replace(target=lied)).calibrated
    assert again.probability[0, :ANY] == pytest.approx(studies.probability[0, :ANY])


def test_a_network_that_knows_nothing_ranks_studies_by_chance():
    """AUC .5, the mean of 60 sets of 20 patients; .35 if each part of them is calibrated to a scale of its own."""
    generator, ranked = np.random.default_rng(1), []
    names = [f"s{number}" for number in range(20)]
    table = pd.DataFrame({"study_id": names, "patient_id": names, "image_id": names})
    for _ in range(60):
        target = np.zeros((20, 6))
        target[generator.permutation(20)[:8], ANY] = 1
        studies = join_studies(Scored(table, target, generator.uniform(0.01, 0.99, (20, 6)))).highest
        ranked.append(roc_auc_score(studies.target[:, ANY], studies.probability[:, ANY]))
    assert np.mean(ranked) == pytest.approx(0.5, abs=0.05)


def test_studies_are_ranked_by_their_highest_slice_and_lose_what_is_calibrated():
    highest, calibrated = join_studies(many_studies(30))
    row = score_labels(calibrated, highest).loc["any"]
    target = highest.target[:, ANY]
    assert row["AUC"] == pytest.approx(roc_auc_score(target, highest.probability[:, ANY]))
    assert row["AUC low"] < row["AUC"] < row["AUC high"]
    assert row["average precision"] == pytest.approx(average_precision_score(target, highest.probability[:, ANY]))
    assert row["log loss"] == pytest.approx(log_loss(target, calibrated.probability[:, ANY]))


def test_sensitivity_and_specificity_are_scikit_learns():
    studies = join_studies(many_studies()).highest
    table = operate(studies)
    for number, label in enumerate(LABELS):
        alarms, found, _ = roc_curve(studies.target[:, number], studies.probability[:, number], drop_intermediate=False)
        for level in LEVELS:
            assert table.loc[label, f"sensitivity at {level}"] == pytest.approx(found[1 - alarms >= level].max())
            assert table.loc[label, f"specificity at {level}"] == pytest.approx((1 - alarms[found >= level]).max())
            for name in ("sensitivity", "specificity"):
                low, middle, high = (table.loc[label, f"{name} at {level}{end}"] for end in (" low", "", " high"))
                assert low <= middle <= high
                assert 0.01 < high - low < 0.8


def test_the_worth_of_an_alarm_is_that_of_a_population_with_so_many_bleeds():
    studies = join_studies(many_studies()).highest
    values = predict_values(studies, "specificity", 0.9)
    target, probability = studies.target[:, ANY] == 1, studies.probability[:, ANY]
    alarms, _, thresholds = roc_curve(target, probability, drop_intermediate=False)
    alarm = probability >= thresholds[1 - alarms >= 0.9][-1]
    assert tuple(values.index) == PREVALENCES
    for prevalence, row in values.iterrows():
        weight = np.where(target, prevalence / target.mean(), (1 - prevalence) / (1 - target.mean()))
        (quiet, false), (missed, right) = confusion_matrix(target, alarm, sample_weight=weight)
        assert row["PPV"] == pytest.approx(right / (right + false))
        assert row["NPV"] == pytest.approx(quiet / (quiet + missed))
        assert row["PPV low"] < row["PPV"] < row["PPV high"]
        assert row["NPV low"] < row["NPV"] < row["NPV high"]


def test_few_studies_without_a_false_alarm_do_not_make_an_alarm_certain():
    studies = join_studies(many_studies(20)).highest
    perfect = studies._replace(probability=0.1 + 0.8 * studies.target)
    quiet = int((studies.target[:, ANY] == 0).sum())
    row = predict_values(perfect, "specificity", 0.95).loc[0.1]
    assert row["PPV"] == row["PPV high"] == pytest.approx(1, abs=1e-3)
    assert row["PPV low"] < 0.1 / (0.1 + 0.9 / quiet)  # as if one in so many had an alarm
    table = operate(perfect)
    assert 0.3 < table.loc["any", "specificity at 0.95 low"] < 1 - 1 / quiet
    assert table.loc["any", "specificity at 0.95"] == 1


def test_the_page_tells_these_numbers_under_their_names(plain, metadata):
    page = Page(plain.read_text())
    predictions = pd.concat(map(pd.read_parquet, plain.parent.glob("runs/small/fold*/valid.parquet")))
    probability = predictions.set_index("image_id").loc[metadata["image_id"]].to_numpy()
    studies, calibrated = join_studies(Scored(metadata, metadata[list(LABELS)].to_numpy(), probability))
    pairs = list(zip(LABELS, studies.target.T, studies.probability.T, calibrated.probability.T, strict=True))
    auc, count = page.column("Scores of studies", "AUC"), page.column("Scores of studies", "positive studies")
    loss = page.column("Scores of studies", "log loss")
    for label, target, said, believed in pairs:
        assert (auc[label], loss[label]) == (f"{roc_auc_score(target, said):.3f}", f"{log_loss(target, believed):.4f}")
        assert count[label] == f"{target.sum():.0f}"
    table = operate(studies)
    for name, other in (("sensitivity", "specificity"), ("specificity", "sensitivity")):
        for level in LEVELS:
            told = page.column("Sensitivity and specificity of studies", f"{name} at {level:.0%} {other}")
            assert [told[label] for label in LABELS] == [f"{x:.3f}" for x in table[f"{name} at {level}"]]
    study = metadata.set_index("image_id")["study_id"]
    said = dict(zip(studies.slices["study_id"], calibrated.probability[:, ANY], strict=True))
    courses = [figure for figure in page.figures if figure.caption.startswith("The study as a whole")]
    assert len(courses) == len(page.articles) > 2
    for article, figure in zip(page.articles, courses, strict=True):
        value = said[study[article.heading.split()[0]]]
        assert figure.caption == f"The study as a whole: any {value:.3f}"
    for fixed in ("specificity", "sensitivity"):
        values = predict_values(studies, fixed, 0.95)
        assert (values["PPV"].round(3) != values["NPV"].round(3)).all()  # else one might stand for the other
        for name, digits in (("PPV", 3), ("NPV", 4)):
            told = page.column(f"Worth of an alarm at {fixed} 95%", name)
            written = values[name].map(lambda value, digits=digits: "-" if np.isnan(value) else f"{value:.{digits}f}")
            assert told == {f"{share:.0%}": value for share, value in written.items()}


def test_the_course_of_a_study_is_drawn_at_the_height_of_its_slices(metadata):
    series = metadata[metadata["series_id"] == metadata.loc[metadata["any"].idxmax(), "series_id"]]
    target, said = series[list(LABELS)].to_numpy(), predict(series).to_numpy()
    axes = figures.plot_course(series, target, said, 3).axes[0]
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    for number, label in enumerate(LABELS):
        np.testing.assert_allclose(lines[label], np.column_stack([series["z"], said[:, number]]))
    assert lines["_shown"].tolist() == [[series["z"].iloc[3], said[3, ANY]]]
    middles = [patch.get_x() + patch.get_width() / 2 for patch in axes.patches]
    assert middles == pytest.approx(series.loc[series["any"] == 1, "z"].tolist())


def test_a_bleed_reaches_over_its_slices_and_to_the_next():
    slices = pd.DataFrame({"series_id": ["a"] * 5 + ["b"] * 3, "z": [0.0, 5, 10, 15, 20, 0, 2, 4]})
    bled = np.array([1, 1, 0, 1, 0, 1, 0, 0], bool)
    np.testing.assert_array_equal(extents(slices, bled), [10, 10, np.nan, 5, np.nan, 2, np.nan, np.nan])


def test_bleeds_of_all_sizes_are_found_among_slices_without(metadata):
    rows = scored(metadata)
    table = score_sizes(rows)
    bled, said = rows.target[:, ANY] == 1, rows.probability[:, ANY]
    assert table["slices"].sum() == bled.sum()
    found = (said[bled] > np.quantile(said[~bled], 0.9)).mean()
    assert np.average(table["found"], weights=table["slices"]) == pytest.approx(found)
    known = table.dropna()
    assert (known["AUC low"] < known["AUC"]).all()
    assert (known["AUC"] < known["AUC high"]).all()


def test_bleeds_that_are_all_found_in_few_patients_may_be_missed_in_others(metadata):
    rows = scored(metadata)
    table = score_sizes(rows._replace(probability=0.1 + 0.8 * rows.target))
    known = table[table["patients"] > 1]
    assert len(known) > 1
    for name in ("found", "AUC"):
        assert (known[[name, f"{name} high"]] == 1).all(axis=None)
        assert known[f"{name} low"].between(0.2, 0.99).all()


def test_kernel_and_thickness_are_those_of_the_series(metadata):
    names = metadata["series_id"].unique()
    series = pd.DataFrame({"kernel": "soft", "thickness": 5.0}, index=names)
    series.loc[names[0]] = "bone", 1.5
    groups = group_slices(metadata, series)
    first = metadata["series_id"] == names[0]
    assert set(groups.loc[first, "Kernel of the reconstruction"]) == {"bone"}
    assert set(groups.loc[~first, "Kernel of the reconstruction"]) == {"soft"}
    assert set(groups.loc[first, "Thickness of a slice"]) == {"below 2 mm"}


def test_what_is_left_unanswered_is_what_is_least_sure(metadata):
    rows = scored(metadata)
    ways = uncertainties(rows, {"a": predict(metadata, 1), "b": predict(metadata, 2)})
    spread = np.std([predict(metadata, seed)["any"] for seed in (1, 2)], axis=0)
    np.testing.assert_allclose(ways["the spread of networks"], spread, rtol=1e-5)
    target, said = rows.target[:, ANY], rows.probability[:, ANY].astype(float)
    curve = cover(rows, ways["its own probability"])
    order = np.argsort(-np.abs(said - 0.5), kind="stable")
    for coverage, row in at_coverages(curve).iterrows():
        kept = order[: round(row["coverage"] * len(order))]
        assert row["coverage"] == pytest.approx(coverage, abs=2 / len(order))
        assert row["log loss"] == pytest.approx(log_loss(target[kept], said[kept], labels=[0, 1]), rel=1e-4)
        assert row["wrong"] == pytest.approx(((said[kept] >= 0.5) != target[kept]).mean(), abs=1e-9)
    (line,) = figures.plot_covered({"it": curve}).axes[0].lines
    assert line.get_xydata()[-1] == pytest.approx([1, log_loss(target, said)], rel=1e-4)


def test_the_runs_of_a_blend_disagree_and_so_do_folds_on_the_test(prepared, metadata, tmp_path):
    work = copy_of(prepared, tmp_path, metadata)
    for seed, name in enumerate(("a", "b")):
        write_run(work, name, metadata)
        write_parquet(work.prediction(name, 0, "valid"), predict(metadata[::2], 7 + seed).reset_index())
    blend = predict(metadata).reset_index()
    blend.attrs = {"way": "equal", "runs": ["a", "b", "gone"]}
    write_parquet(work.blend / "valid.parquet", blend)
    subject = read_subject(work, "blend")
    assert list(subject.members) == ["a", "b"]
    dispute = find_dispute(scored(metadata), subject, work)
    apart = (predict(metadata[::2], 7)["any"] - predict(metadata[::2], 8)["any"]).abs()
    assert dispute.networks == ["a", "b"]
    assert dispute.cases[0][0] == apart.idxmax()
    truth = metadata.set_index("image_id").loc[apart.idxmax(), "any"]
    assert dispute.cases[0][1] == ("yes" if truth else "no")
    assert dispute.apart == pytest.approx((apart > 0.5).sum() / len(metadata))
    assert find_dispute(scored(metadata), read_subject(work, "a"), work) is None
    test = read_slices(prepared, "test")
    for fold in (0, 1):
        said = predict(test.assign(**dict.fromkeys(LABELS, 0.0)), fold)
        write_parquet(work.prediction("a", fold, "test"), said.reset_index())
    of_test = find_dispute(scored(metadata), read_subject(work, "a"), work)
    assert (of_test.networks, of_test.slices, of_test.cases[0][1]) == (["fold 0", "fold 1"], len(test), "not known")


class Spotted(torch.nn.Module):
    """Features that are the image itself, averaged and weighted: heat is where the image is."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.Conv2d(1, 1, 1, bias=False)
        torch.nn.init.ones_(self.features.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = self.features(images).mean(dim=(2, 3))
        return mean * torch.tensor([1.0, 0, 0, 0, 0, -1.0])


def test_heat_is_where_the_features_speak_for_the_label():
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 2, 5] = 4
    heat = heat_maps(Spotted(), image, 0)[0]
    assert np.unravel_index(heat.argmax(), (8, 8)) == (2, 5)
    assert (heat > 0).sum() == 1
    assert heat_maps(Spotted(), image, ANY).max() == 0  # what speaks against it is no heat


@pytest.mark.parametrize("name", ["small", "efficientnet-b0"])
def test_heat_of_a_network_covers_its_input(name):
    network = build_network(TrainConfig(**{**vars(CONFIG), "network": name}))
    images = torch.randint(255, (2, 3, SMALL, SMALL), dtype=torch.uint8)
    heat = heat_maps(network, images, ANY)
    assert heat.shape == (2, SMALL, SMALL)
    assert (heat >= 0).all()
    alone = heat_maps(network, images[1:], ANY)
    torch.testing.assert_close(alone[0], heat[1], rtol=1e-3, atol=1e-5)


def test_views_are_the_network_under_each_symmetry():
    network = build_network(CONFIG).eval()
    images = torch.randint(255, (1, 3, SMALL, SMALL), dtype=torch.uint8)
    views = view_probabilities(network, images)
    assert views.shape == (8, 1, 6)
    with torch.inference_mode():
        plain = network(images).sigmoid()
        turned = network(images.rot90(1, (-2, -1))).sigmoid()
    torch.testing.assert_close(views[0], plain)
    torch.testing.assert_close(views[1], turned)


def test_a_page_with_a_network_shows_heat_on_the_first_cases(prepared, metadata, tmp_path):
    work = copy_of(prepared, tmp_path, metadata)
    write_run(work, "small", metadata)
    networks = build_network(CONFIG), build_network(CONFIG)
    for fold, network in enumerate(networks):
        save_weights(work.run("small", fold), network)
        save_config(work.run("small", fold), CONFIG, fold, {"best_epoch": 3})
    report(ReportOptions("small", work=work.root))
    page = Page((work.root / "report_small.html").read_text())
    hot = {article.heading: [f for f in article.figures if "heat" in f.caption] for article in page.articles}
    assert sum(map(bool, hot.values())) == 6
    slices = metadata.set_index("image_id")
    for article in page.articles:
        for figure in hot[article.heading]:
            row = slices.loc[figure.alt.split(",")[0]]
            hounsfield = Series(prepared.series(SMALL, row["series_id"])).read(int(row["chunk"]))
            grey = np.stack([apply_window(hounsfield, channel.window) for channel in CONFIG.channels])
            fold = metadata["image_id"].tolist().index(article.heading.split()[0]) % 2  # as write_run deals them
            heat = heat_maps(networks[fold], torch.from_numpy(grey)[None], ANY)[0].numpy()
            assert figure.source == overlay(hounsfield, heat, BRAIN)
            views = view_probabilities(networks[fold], torch.from_numpy(grey)[None])[:, 0, ANY]
            assert figure.caption.endswith(f"any {views.min():.2f} to {views.max():.2f}")
    report(ReportOptions("small", work=work.root, heat=False))
    assert not any("heat" in figure.caption for figure in Page((work.root / "report_small.html").read_text()).figures)


@pytest.mark.parametrize("fixed", ["sensitivity", "specificity"])
@pytest.mark.parametrize("lacking", [0, 1])
def test_a_draw_without_one_of_the_classes_has_no_point(fixed, lacking):
    """Not one at which all are right."""
    of_class = [np.array([[0, 2], [1, 1]]), np.array([[1, 3], [2, 2]])]  # (draws, steps)
    of_class[lacking][0] = 0
    point = studies._point(tuple(of_class), fixed, 0.95)
    assert np.isnan([share[0] for share in point]).all()
    assert not np.isnan([share[1] for share in point]).any()


def test_heat_is_drawn_at_its_place():
    heat = np.zeros((SMALL, SMALL), np.float32)
    heat[10, 50] = 1
    drawn = pixels(overlay(np.full((SMALL, SMALL), -1000, np.int16), heat, BRAIN))
    assert np.unravel_index(drawn.argmax(), drawn.shape) == (10, 50)
    cropped = pixels(overlay(np.full((SMALL, SMALL), -1000, np.int16), heat[8:56, 8:56], BRAIN))
    np.testing.assert_array_equal(cropped, drawn)
