"""Step 1: a folder of DICOM files -> cache/ (metadata, slice store, folds, problems).

    python models/prepare.py --data data --image-size 224 512
    python models/prepare.py --check          # the report alone: every file is read, no slice is stored

Needs the challenge's data in Kaggle's layout, a phantom (python models/make_phantom.py data), or any tree of CT files,
of which axial head CT in Hounsfield units becomes test slices. Writes cache/metadata_{train,test}.parquet,
cache/slices_<size>/<series>.slices, cache/folds.csv, cache/problems.csv, cache/series.csv and
cache/contact_sheet.png. It can be stopped at any moment: the same command goes on where it was.
"""

from models.common.cli import command
from models.preprocessing.preparation import PrepareOptions, prepare

if __name__ == "__main__":
    command(prepare, PrepareOptions)
