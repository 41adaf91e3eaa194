"""The command line of a training script: what is asked for, and whether there is anything to do.

Torch and fastai, seconds of imports, are needed only then: `models/training/fold.py` does the work.
"""

from models.common.cli import command
from models.common.config import RunConfig
from models.common.earlier import go_on_from
from models.common.options import TrainOptions
from models.preprocessing.tables import require_slices
from models.training.run_folder import is_finished
from models.training.stopping import is_one_of_several


def main(config: RunConfig) -> None:
    """The command line of a training script: every field of its configuration, the fold and the machine."""
    command(train, TrainOptions(config))


def train(options: TrainOptions) -> None:
    """Train a fold and write config.json, model.safetensors, history.csv, history.png, patients.parquet and
    valid.parquet.

    A finished run is left alone, one that was cut short goes on at its last checkpoint. Ctrl-C, SIGTERM and the end of
    a budget save and end the process. Raises InputError for what the command line or the cache has wrong, before any
    work, and if another process trains this fold.
    """
    if not is_one_of_several():  # those have to see the same, and so ask together
        go_on_from(options.machine.session, options.machine.working_folder)
        if not options.leaves_run_alone and is_finished(options):
            return
        require_slices(options.machine.working_folder, "train")
    from models.training.fold import carry_out

    carry_out(options)
