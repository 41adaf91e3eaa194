"""Your own head CT -> an answer that can be read, checked and filed.

    python models/predict.py scan.zip --output answers
    python models/predict.py folder_of_studies --weights runs/b2 --prevalence 0.1 --dicom

Needs nothing but CT: files, folders of many patients, zips, tars, NIfTI, a DICOMDIR. Without --weights the default
network answers, which has learnt from drawings alone. Of each study the series that suits best is chosen and checked,
and what cannot be judged is refused, with the reason. Writes answers/answers.csv and for each study answer.json,
slices.csv and page.html. Exit code 0: all answered; 3: some refused, or files that may be of another study cannot be
read; 2: what was named cannot be used. The same command goes on where it was stopped. Research software, not a medical
device: do not base a decision about a patient on it.
"""

from models.common.cli import command
from models.inference.asked import PredictOptions


def predict(options: PredictOptions) -> int:
    """Answer all studies; the exit code is 0, or 3 where not all are. Raises InputError as what it calls does."""
    from models.reporting.predicting import predict as carry_out  # with pandas and pydicom, which --help does not need

    return carry_out(options)


if __name__ == "__main__":
    command(predict, PredictOptions, error_code=2)
