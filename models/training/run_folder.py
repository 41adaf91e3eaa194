"""The folder of a fold: whether it has been trained, and which process trains it."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from models.common.errors import InputError
from models.common.files import remove_temporaries, require_writable
from models.common.locks import only_process
from models.common.options import TrainOptions
from models.training.checkpoint_files import delete_checkpoints
from models.training.run_record import differences, read_run, stage_difference


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
def only_training(folder: Path) -> Generator[None]:
    """Hold the lock of a fold. Raises InputError if another training has it, or the folder cannot be written to."""
    require_writable(folder)
    # Beside the folder, not in it: a lock must never be deleted, and a finished run is its files and nothing else.
    lock = folder.parent / f".{folder.name}.lock"
    with only_process(lock, "training", lock.with_suffix(".holder"), folder):
        remove_temporaries(folder)  # of a run that was killed
        yield
