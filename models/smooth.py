"""Smooth the predictions of a run along z, without training: what a network over neighbouring slices has to beat.

    python models/smooth.py b2

Needs cache/ and finished folds in runs/b2. Writes config.json, valid.parquet and, where b2 has them, test.parquet and
those of the stages to runs/b2_smoothed/fold<k>/, which is then a run like any other. Prints the widths and the scores
before and after, with their paired difference.
The width of a fold, the standard deviation of a Gaussian in mm, is fitted on the out-of-fold predictions of the other
folds, so that its score is of slices that the width has not seen.
"""

from models.common.cli import command
from models.inference.smoothed_run import SmoothOptions, smooth_run

if __name__ == "__main__":
    command(smooth_run, SmoothOptions)
