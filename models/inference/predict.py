"""The command line of an inference script: what is asked for, and whether there is anything to do.

Torch and fastai, seconds of imports, are needed only then: `models/inference/fold.py` does the work.
"""

from dataclasses import replace

from models.common.cli import command
from models.common.earlier import go_on_from
from models.common.folders import RELEASE
from models.common.options import InferOptions
from models.inference.parts import find_run, is_finished, parts_of
from models.preprocessing.tables import require_slices
from models.training.stopping import is_one_of_several


def main(name: str) -> None:
    """The command line of an inference script."""
    command(infer, InferOptions(name))


def infer(options: InferOptions) -> None:
    """Write a prediction file of a fold, one row for every slice of the metadata; one that is there is left alone.

    Series that have gained slices since, of which slices that could not be read now can, or whose slices are others
    under the same names, are predicted anew.

    What is predicted already when it is cut short is kept, and the same command goes on after it. Raises InputError if
    the fold has not been trained, or in this working folder but with other folds than the cache holds, the cache lacks
    its image size, or another process predicts the same; and for a release that is damaged, or lacks the fold.
    """
    if options.weights is not None and (options.weights / RELEASE).is_file():
        from models.inference.release import weights_of_release  # with scipy, which few need

        options = replace(options, weights=weights_of_release(options.weights, options.name, options.fold))
    if not is_one_of_several():  # those have to see the same, and so ask together
        go_on_from(options.machine.session, options.machine.working_folder)
        record = find_run(options)
        if is_finished(options, record, parts_of(options, record)):
            return
        require_slices(options.machine.working_folder, options.split)
    from models.inference.fold import carry_out

    carry_out(options)
