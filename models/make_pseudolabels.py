"""Test predictions of runs -> pseudolabels: labels of test slices to train on, for each fold its own.

    python models/make_pseudolabels.py b5                       # b2 b5: the mean of both
    python models/make_pseudolabels.py b5 --kind hard           # the original's way

Needs cache/ and, in runs/, folds with a test.parquet (infer_b5.py) of every run that is named. Writes
cache/pseudolabels_<name>_fold<k>.parquet for train_b5_pseudo.py, and prints how many there are and their prevalence.

No pseudolabel of a fold knows a patient that the fold validates on. It comes from predictions of this fold alone:
networks of the other folds have trained on those patients. Test slices of those patients are left out, and a run that
was trained with other folds is refused. Any run will do: layers over embeddings have the folds of the networks below
them, and the width of a smoothed fold, one number, is fitted on the labels of the other folds.
"""

from models.common.cli import command
from models.inference.pseudolabel_files import PseudolabelOptions, make_pseudolabels

if __name__ == "__main__":
    command(make_pseudolabels, PseudolabelOptions)
