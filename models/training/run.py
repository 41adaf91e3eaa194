"""The command line of a training script: what is asked for, and whether there is anything to do.

Torch and fastai, seconds of imports, are needed only then: `models/training/fold.py` does the work.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.common.cli import command
from models.common.config import RunConfig, TrainOptions
from models.common.errors import InputError
from models.common.files import remove_temporaries, require_writable
from models.common.locks import only_process
from models.preprocessing.tables import require_slices
from models.training.checkpoint_files import delete_checkpoints
from models.training.run_record import differences, read_run, stage_difference
from models.training.stopping import is_one_of_several


def main(config: RunConfig) -> None:
    """The command line of a training script: every field of its configuration, the fold and the machine."""
    command(train, TrainOptions(config))


def train(options: TrainOptions) -> None:
    """Train a fold and write config.json, model.safetensors, history.csv, history.png and valid.parquet.

    A finished run is left alone, one that was cut short goes on at its last checkpoint. Ctrl-C and SIGTERM save and
    end the process. Raises InputError for what the command line or the cache has wrong, before any work, and if
    another process trains this fold.
    """
    if not is_one_of_several():  # those have to see the same, and so ask together
        if not options.find_lr and is_finished(options):
            return
        require_slices(options.machine.working_folder, "train")
    from models.training.fold import carry_out

    carry_out(options)


def is_finished(options: TrainOptions) -> bool:
    """Whether this fold has been trained. Raises InputError if another configuration or stage lies in its folder."""
    folder, previous = options.folder, read_run(options.folder)
    if previous is None:
        return False
    different = differences(options.config, previous.config) + stage_difference(options.machine.stage, previous.stage)
    if different:
        raise InputError(
            f"{folder} was trained with {', '.join(different)}; delete it, or write this run elsewhere with --name"
        )
    print(f"{folder} is finished; delete it to train it again")
    delete_checkpoints(folder)  # a kill may have come between the last file and this
    return True


@contextmanager
def only_training(folder: Path) -> Iterator[None]:
    """Hold the lock of a fold. Raises InputError if another training has it, or the folder cannot be written to."""
    require_writable(folder)
    # Beside the folder, not in it: a lock must never be deleted, and a finished run is its files and nothing else.
    lock = folder.parent / f".{folder.name}.lock"
    with only_process(lock, "training", lock.with_suffix(".holder"), folder):
        remove_temporaries(folder)  # of a run that was killed
        yield
