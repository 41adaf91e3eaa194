"""The folder of a fold: whether it has been trained, and which process trains it."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from models.common.config import RunConfig
from models.common.errors import InputError
from models.common.files import read_notes, remove_temporaries, require_writable
from models.common.folders import Work
from models.common.locks import only_process
from models.common.options import TrainOptions
from models.preprocessing.tables import hash_tables, split_fold
from models.training.checkpoint_files import begun_config, delete_checkpoints
from models.training.run_record import RunRecord, differences, read_run, stage_difference
from models.training.seen import describe_seen, require_unseen


def is_finished(options: TrainOptions) -> bool:
    """Whether this fold has been trained.

    Raises InputError if another configuration, stage or view of the out-of-fold predictions lies in its folder, or the
    tables of the cache are others now; and if the record or these predictions are damaged.
    """
    folder, previous = options.folder, read_run(options.folder)
    if previous is None:
        return False
    different = differences(options.config, previous.config) + stage_difference(options.machine.stage, previous.stage)
    different += view_difference(options)
    if different:
        raise InputError(
            f"{folder} was trained with {', '.join(different)}; delete it, or write this run elsewhere with --name"
        )
    require_same_tables(options, previous)
    print(f"{folder} is finished; delete it to train it again")
    delete_checkpoints(folder)  # a kill may have come between the last file and this
    return True


def view_difference(options: TrainOptions) -> list[str]:
    """What the test-time augmentation of the out-of-fold predictions was, if another one is asked for now.

    An older version has not noted it: then nothing is different. Raises InputError if they are damaged.
    """
    file, repair = options.folder / "valid.parquet", f"the same command, after deleting {options.folder}"
    before = read_notes(file, repair).get("tta", options.tta) if file.is_file() else options.tta
    return [] if before == options.tta else [f"tta {before!r} (now {options.tta!r})"]


def require_same_tables(options: TrainOptions, record: RunRecord) -> None:
    """Raise InputError if a fold was trained with other folds, slices or labels than the cache holds, if it is there.

    An older version has not noted with which: what it validates on must be what it was validated on.
    """
    folder, work, fold = options.folder, options.machine.working_folder, options.fold
    tables = hash_tables(work)
    if tables and not tables.keys() & record.sources.keys():
        require_unseen(folder, split_fold(work, fold, skip_low_information=False)[1], work, fold)
    elif different := [name for name, sha256 in tables.items() if record.sources[name] != sha256]:
        raise InputError(
            f"{folder} was trained with another {' and '.join(different)} than {work.tables} holds now"
            f"{describe_seen(folder, work, fold)}; delete it to train it again, or write this run elsewhere with --name"
        )


def epochs_begun(works: Iterable[Work], config: RunConfig) -> tuple[Path, int] | None:
    """The first fold of a run that some working folder holds, finished or begun, and of how many epochs it is.

    Raises InputError for a record that is damaged, and for what a newer version of this project has written.
    """
    for work in works:
        for folder in sorted(work.runs.glob(f"{config.name}/fold*")):
            record = read_run(folder)
            begun = record.config if record else begun_config(folder, config)
            if begun:
                return folder, begun.epochs
    return None


@contextmanager
def only_training(folder: Path) -> Generator[None]:
    """Hold the lock of a fold. Raises InputError if another training has it, or the folder cannot be written to."""
    require_writable(folder)
    # Beside the folder, not in it: a lock must never be deleted, and a finished run is its files and nothing else.
    lock = folder.parent / f".{folder.name}.lock"
    with only_process(lock, "training", lock.with_suffix(".holder"), folder):
        remove_temporaries(folder)  # of a run that was killed
        yield
