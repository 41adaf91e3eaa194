"""Blend runs -> submission.csv: what blending.ipynb does, without its pictures.

    python models/blend.py
    python models/blend.py b2 b5 --way fitted

Needs cache/, finished folds in runs/ with their test predictions and, for a submission, the sample submission in the
raw folder. Writes blend/{valid.parquet,test.parquet,blend.json} and submission.csv: the ways to blend are scored on
patients that they have not seen, and the best is used. Where blend/blend.json is there already, the submission is
made again from what it tells, and nothing is chosen anew.
"""

from models.common.cli import command
from models.inference.blend_options import BlendOptions


def blend(options: BlendOptions) -> None:
    """Write the blend. Raises InputError as `models.inference.blend_run.carry_out`."""
    from models.inference.blend_run import carry_out  # with scikit-learn, a second of imports

    carry_out(options)


if __name__ == "__main__":
    command(blend, BlendOptions)
