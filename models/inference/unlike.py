"""What is unlike in the predictions of runs, and so has to be said before they are compared or blended."""

from models.common.files import read_notes
from models.common.folders import Work
from models.inference.runs import Run
from models.training.run_record import SmoothedRecord, read_record

# How often a network looks at a slice, by the test-time augmentation that a prediction file notes.
VIEWS = {"none": "one view", "flip": "two views", "d4": "eight views"}


def describe_left_out(runs: list[Run]) -> list[str]:
    """A line for each run that lacks out-of-fold predictions which another one has, and one of what is left to compare.

    Without a line all runs have the same slices.
    """
    union = runs[0].out_of_fold.index
    for run in runs[1:]:
        union = union.union(run.out_of_fold.index)
    lacking = {run.name: union.difference(run.out_of_fold.index) for run in runs}
    if not any(map(len, lacking.values())):
        return []
    folds, left_out = sorted({fold for run in runs for fold in run.folds}), union[:0]
    lines = []
    for run in runs:
        if len(lacking[run.name]) == 0:
            continue
        left_out = left_out.union(lacking[run.name])
        untrained = [str(fold) for fold in folds if fold not in run.folds]
        why = f"its fold {' and '.join(untrained)} is not trained" if untrained else f"first {lacking[run.name][0]}"
        lines.append(f"{run.name} has no prediction of {len(lacking[run.name]):,} of {len(union):,} slices: {why}")
    common = len(union) - len(left_out)
    lines.append(
        f"compared, fitted and chosen by: the {common:,} slices that all {len(runs)} runs have; the other "
        f"{len(left_out):,} are left out"
    )
    return lines


def describe_views(work: Work, runs: list[Run]) -> list[str]:
    """A line for each run whose out-of-fold predictions, which blends are fitted on, are made unlike its test's.

    Those of the test are also the mean of as many networks as a run has folds, which is said of any run with several.
    """
    lines = []
    for run in runs:
        of_valid, of_test = (
            {
                view_of(work, run.name, fold, split)
                for fold in run.folds
                if work.prediction(run.name, fold, split).is_file()
            }
            for split in ("valid", "test")
        )
        if of_valid != of_test:
            valid, test = (" or ".join(sorted(VIEWS[view] for view in views)) for views in (of_valid, of_test))
            lines.append(f"{run.name}: out-of-fold predictions are of {valid}, those of the test of {test}")
    if several := [run for run in runs if len(run.folds) > 1]:
        most = max(len(run.folds) for run in several)
        lines.append(
            f"an out-of-fold prediction is of one network, one of the test the mean of up to {most}: it is surer, and "
            "weights and calibrations are fitted on the former"
        )
    return lines


def view_of(work: Work, name: str, fold: int, split: str) -> str:
    """The test-time augmentation of a prediction file, that of its origin if it is smoothed.

    Out-of-fold predictions did not always note it: then they are of one view. Raises InputError if it is damaged.
    """
    record = read_record(work.run(name, fold))
    if isinstance(record, SmoothedRecord):
        return view_of(work, record.run, fold, split)
    return read_notes(work.prediction(name, fold, split), "the script that has made it").get("tta", "none")
