"""blend/blend.json: what a blend was made of, and how; from it models/blend.py makes the submission again."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from models.common.errors import InputError
from models.common.files import hash_file, read_json, write_json
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.repair import command_of
from models.inference.runs import Run, changed_files
from models.preprocessing.tables import hash_tables
from models.training.run_record import commit, project_version

_ALONE = "best_single"


@dataclass(frozen=True)
class BlendRecord:
    """What blend.json tells. Of each label by its name: a label may have a way of its own."""

    asked: str  # "best": the ways were chosen by their nested scores; else the way that was asked for
    ways: dict[str, str]  # label -> way
    fitted: dict[str, dict[str, Any]]  # label -> what the way has fitted: weights by run, space, calibration, ...
    nested: dict[str, dict[str, float]]  # label -> way -> log loss on patients that its fit has not seen
    folds: dict[str, list[int]]  # run -> its folds
    runs_sha256: dict[str, dict[str, str]]  # run -> fold0/valid.parquet -> hash
    tables_sha256: dict[str, str]  # of labels and folds, which it was fitted on
    files_sha256: dict[str, str]  # of what was written: valid.parquet, test.parquet, submission.csv
    stage: int | None
    command: str
    commit: str | None = None  # of the code that has fitted it; it was not always noted

    @property
    def name(self) -> str:
        """The way in a word or two; a single run by its name."""
        ways = {self.called(label) for label in LABELS}
        return ways.pop() if len(ways) == 1 else "a way for each label"

    def called(self, label: str) -> str:
        """The way of a label; of a single run its name."""
        weights = self.fitted.get(label, {}).get("weights")
        if self.ways[label] == _ALONE and weights:
            return f"{max(weights, key=lambda run: weights[run])} alone"
        return self.ways[label]


def describe_fit(fitted: object, label: int, names: Sequence[str]) -> dict[str, Any]:
    """What a blend of any kind holds of one label, as JSON knows it: whatever its fields, those of all labels left out.

    A row of as many numbers as there are runs is told by their names.
    """
    described: dict[str, Any] = {"kind": type(fitted).__name__}
    for field in fields(fitted) if is_dataclass(fitted) else ():
        values = getattr(fitted, field.name)
        if isinstance(values, tuple | list | np.ndarray) and len(values) == len(LABELS) and field.name != "names":
            value = values[label]
            named = np.shape(value) == (len(names),) and isinstance(value, np.ndarray)
            described[field.name] = dict(zip(names, value.tolist(), strict=True)) if named else _plain(value)
    return described


def inputs_of(work: Work, runs: Sequence[Run]) -> dict[str, Any]:
    """The fields of a record that tell what a blend is made of, and by which code.

    Raises InputError for damaged tables.
    """
    hashes = {}
    for run in runs:
        files = [work.prediction(run.name, fold, split) for fold in run.folds for split in ("valid", "test")]
        hashes[run.name] = {f"{file.parent.name}/{file.name}": hash_file(file) for file in files if file.is_file()}
    return {
        "folds": {run.name: list(run.folds) for run in runs},
        "runs_sha256": hashes,
        "tables_sha256": hash_tables(work),
        "stage": work.stage,
        "commit": commit(),
    }


def write_record(work: Work, record: BlendRecord) -> None:
    """Write blend.json, last of the blend's files. Raises InputError if it cannot be written."""
    write_json(work.blend / "blend.json", asdict(record) | {"project": project_version()}, indent=2)


def read_record_of_blend(work: Work) -> BlendRecord | None:
    """What is noted of the blend; None where there is none, or blending.ipynb of an older version has made it.

    Raises InputError if it is damaged, lacks what this version asks of it, or a file of the blend is another now.
    """
    file, repair = work.blend / "blend.json", command_of("blend", work=work)
    if not file.is_file():
        return None
    values = read_json(file, repair)
    known = {field.name: values[field.name] for field in fields(BlendRecord) if field.name in values}
    try:
        record = BlendRecord(**known)
    except TypeError as error:
        raise InputError(f"{file} cannot be read ({error}); delete {work.blend}, then: {repair}") from error
    for name in ("valid.parquet", "test.parquet"):
        written = work.blend / name
        if written.is_file() and hash_file(written) != record.files_sha256.get(name):
            raise InputError(f"{written} is not the one that blend.json tells of; delete {work.blend}, then: {repair}")
    return record


def changed_inputs(work: Work, record: BlendRecord) -> list[str]:
    """What a blend was made of and is another now, or gone: b2/fold0/valid.parquet. Raises as `hash_tables`."""
    files = [f"{run}/{name}" for run, hashes in record.runs_sha256.items() for name in changed_files(work, run, hashes)]
    tables = hash_tables(work)
    return files + [name for name, sha256 in record.tables_sha256.items() if tables.get(name, sha256) != sha256]


def _plain(value: Any) -> Any:
    """A value as JSON knows it."""
    if hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if hasattr(value, "get_params"):  # of scikit-learn: what makes it, and what a linear one has learnt
        learnt = {name: getattr(value, name).tolist() for name in ("coef_", "intercept_") if hasattr(value, name)}
        return {"kind": type(value).__name__, **learnt}
    return value if isinstance(value, str | int | float | bool | None) else str(value)
