"""Release a run, or a blend with all of its networks: a folder and a zip to pass on, with a card of what it is.

    python models/release.py b2 --output b2_release --license cc-by-nc-4.0
    python models/release.py blend --output blend_release

Needs cache/ and finished folds in runs/, for a blend blend/, which blend.py writes. Writes the folder that
predict.py --weights and the inference scripts take (docs/release.md): weights as float16 where that moves no
probability of the own validation by a thousandth, calibration, operating points, and what was measured of it, on
card.md and card.html. Nothing of those whom it has learnt from is in it but sums.
"""

from models.common.cli import command
from models.inference.release_options import ReleaseOptions


def release(options: ReleaseOptions) -> None:
    """Write the release. Raises InputError as `models.reporting.releasing.carry_out`."""
    from models.reporting.releasing import carry_out  # with torch and scikit-learn, seconds of imports

    carry_out(options)


if __name__ == "__main__":
    command(release, ReleaseOptions)
