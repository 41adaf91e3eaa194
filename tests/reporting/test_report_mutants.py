"""What the page says is held by tests: each number and figure is swapped for another here, and a test turns red."""

from typing import NamedTuple

import pytest
from mutants import break_promise, copy_project, run_tests

PAGE = "models/reporting/page.html"


class Mutant(NamedTuple):
    """A text of the project, what it is turned into, and the test that must see it."""

    file: str
    text: str
    broken: str
    test: str


MUTANTS = {
    "loss swapped with the prior's": Mutant(
        PAGE,
        '{% endif %}\n<td>{{ row["log loss"]|number(4) }}</td>',
        '{% endif %}\n<td>{{ row["prior\'s"]|number(4) }}</td>',
        "test_losses_and_the_priors_are_scikit_learns",
    ),
    "AUC of the wrong label": Mutant(
        "models/reporting/tables.py",
        '"AUC"] = auc(target, probability)',
        '"AUC"] = auc(target, scored.probability[:, number - 1])',
        "test_each_label_has_its_own_rank",
    ),
    "low and high swapped": Mutant(
        "models/reporting/page.py",
        'for end in ("low", "high")',
        'for end in ("high", "low")',
        "test_an_interval_runs_from_low_to_high_around_its_number",
    ),
    "axes of the ROC swapped": Mutant(
        "models/reporting/figures.py",
        "curves[number] = alarms, found",
        "curves[number] = found, alarms",
        "test_curves_are_scikit_learns_on_their_axes",
    ),
    "axes of precision and recall swapped": Mutant(
        "models/reporting/figures.py",
        "curves[number] = recall, precision",
        "curves[number] = precision, recall",
        "test_curves_are_scikit_learns_on_their_axes",
    ),
    "bone window captioned brain": Mutant(
        "models/reporting/mistakes.py",
        '"brain": (itself, BRAIN)',
        '"brain": (itself, BONE)',
        "test_a_case_shows_its_slice_its_neighbours_and_its_windows",
    ),
    "neighbours swapped": Mutant(
        "models/reporting/mistakes.py",
        '"slice below, brain": (below, BRAIN)',
        '"slice below, brain": (above, BRAIN)',
        "test_a_case_shows_its_slice_its_neighbours_and_its_windows",
    ),
    "one curve under the name of the other": Mutant(
        PAGE, "{{ drawing(roc, ", "{{ drawing(precision, ", "test_each_figure_stands_where_it_is_called_by_its_name"
    ),
    "calibration of another label": Mutant(
        "models/reporting/page.py",
        "calibrate(target[:, number], probability[:, number], patients)",
        "calibrate(target[:, number], probability[:, ANY], patients)",
        "test_calibration_has_predictions_below_and_shares_beside",
    ),
    "share observed swapped with what is predicted": Mutant(
        "models/reporting/figures.py",
        'points["predicted"], points["observed"], "o-"',
        'points["observed"], points["predicted"], "o-"',
        "test_calibration_has_predictions_below_and_shares_beside",
    ),
    "true swapped with predicted types": Mutant(
        "models/reporting/tables.py",
        "alone & subtypes[:, number]",
        "(scored.probability.argmax(axis=1) == number)",
        "test_types_alone_stand_in_rows_and_labels_in_columns",
    ),
    "the prior of all slices beside a group": Mutant(
        "models/reporting/subgroups.py",
        "weighted_log_loss(target, prior(target))",
        "weighted_log_loss(scored.target, prior(scored.target))",
        "test_a_subgroup_stands_beside_the_prior_of_that_very_group",
    ),
    "any told of a case is another label": Mutant(
        PAGE, "any {{ case.probability[any]|number }}", "any {{ case.probability[0]|number }}", "test_a_case_tells"
    ),
    "shares of the prior upside down": Mutant(
        "models/reporting/figures.py",
        'axes.plot(table["of prior"], rows, "o"',
        'axes.plot(table["of prior"], rows[::-1], "o"',
        "test_shares_of_the_prior_are_drawn_beside_the_name_of_their_label",
    ),
    "worth of an alarm swapped with that of none": Mutant(
        PAGE, '{{ row["PPV"]|number }}', '{{ row["NPV"]|number }}', "test_the_page_tells_these_numbers"
    ),
    "a study is what its first slice is": Mutant(
        "models/reporting/studies.py",
        "np.maximum.at(target, codes, scored.target)",
        "target[codes[::-1]] = scored.target[::-1]",
        "test_a_study_has_what_one_of_its_slices_has",
    ),
    "studies calibrated on themselves": Mutant(
        "models/reporting/studies.py",
        "fit_calibration(logits[others, label], target[others, label])",
        "fit_calibration(logits[part, label], target[part, label])",
        "test_studies_are_calibrated_by_others",
    ),
    "false alarms swapped with what is missed": Mutant(
        "models/reporting/studies.py",
        "specificity, sensitivity = shares[0], 1 - shares[1]",
        "specificity, sensitivity = 1 - shares[1], shares[0]",
        "test_sensitivity_and_specificity_are_scikit_learns",
    ),
    "the least sure are answered": Mutant(
        "models/reporting/certainty.py",
        "-np.abs(scored.probability[:, ANY] - _EVEN)",
        "np.abs(scored.probability[:, ANY] - _EVEN)",
        "test_what_is_left_unanswered_is_what_is_least_sure",
    ),
    "heat of another label": Mutant(
        "models/reporting/looks.py",
        "heat_maps(network, image, ANY)",
        "heat_maps(network, image, 0)",
        "test_a_page_with_a_network_shows_heat",
    ),
    "heat of the other fold": Mutant(
        "models/reporting/looks.py",
        'rows["image_id"].map(folds) == fold',
        'rows["image_id"].map(folds) != fold',
        "test_a_page_with_a_network_shows_heat",
    ),
    "the course turned over": Mutant(
        "models/reporting/figures.py",
        "axes.plot(z, probability[:, number], label=LABELS[number], linewidth",
        "axes.plot(z[::-1], probability[:, number], label=LABELS[number], linewidth",
        "test_the_course_of_a_study",
    ),
}


@pytest.mark.torture
@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_a_wrong_number_turns_a_test_red(tmp_path, mutant):
    copy_project(tmp_path)
    break_promise(tmp_path / mutant.file, mutant.text, mutant.broken)
    found = run_tests(tmp_path, "tests/reporting/", "-k", mutant.test)
    assert found.returncode == 1, found.stdout[-3000:]  # without the mutant it passes: the suite sees to that
