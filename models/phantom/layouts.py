"""Where the files of a phantom lie: as in the downloads of the challenge, or as a hospital exports them."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.preprocessing.raw import NESTED

ANSWERS = "phantom_test_labels.csv"
# Names in a hospital's folders hold text that must not get out: it is easily found.
CANARY = "CANARY^tree"


@dataclass(frozen=True)
class Layout:
    """Paths below the phantom's folder. Without a label file there are no tables, and a folder for each series."""

    train: str
    test: str
    labels: str | None = None
    sample_submission: str | None = None

    def folder(self, split: str) -> str:
        """Where the slices of "train" or "test" lie."""
        return self.train if split == "train" else self.test

    def tables(self, split: str) -> list[str]:
        """The files that hold rows for the images of a split."""
        if self.labels is None or self.sample_submission is None:
            return []
        return [self.labels] if split == "train" else [self.sample_submission, ANSWERS]

    def slices(self, split: str, names: tuple[str, str, str], images: Sequence[str]) -> list[str]:
        """Paths of the slices of one series; `names` are the ids of patient, study and series."""
        if self.labels is not None:
            return [f"{self.folder(split)}/{image}.dcm" for image in images]
        patient, study, series = names
        place = f"{CANARY} {patient}/2019-04-30 {CANARY} CT {study}/002 {CANARY} 5.0 H31s {series}"
        number = {image: rank + 1 for rank, image in enumerate(sorted(images))}  # tells nothing about the order
        return [f"{place}/IM-{number[image]:04d}" for image in images]


LAYOUTS = {
    "stage_2": Layout("stage_2_train", "stage_2_test", "stage_2_train.csv", "stage_2_sample_submission.csv"),
    "stage_1": Layout(
        "stage_1_train_images", "stage_1_test_images", "stage_1_train.csv", "stage_1_sample_submission.csv"
    ),
    "zip": Layout(
        f"{NESTED}/stage_2_train",
        f"{NESTED}/stage_2_test",
        f"{NESTED}/stage_2_train.csv",
        f"{NESTED}/stage_2_sample_submission.csv",
    ),
    "tree": Layout(".", "."),
}
