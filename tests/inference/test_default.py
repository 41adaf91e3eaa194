"""Laws of the network that is used where nobody names one: it is whole, or an error tells how to get it."""

import pytest
from pages import REPOSITORY

from models.common.errors import InputError
from models.common.files import hash_file, write_json
from models.common.labels import LABELS
from models.inference.calibration import Calibration
from models.inference.default import FOLDER, default_calibration, default_runs, needed_files


@pytest.fixture
def whole(tmp_path):
    """A folder with all that makes a default network whole, and nothing in its files but the calibration."""
    files = needed_files(tmp_path)
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
    write_json(tmp_path / "calibration.json", {label: [2.0, place] for place, label in enumerate(LABELS)})
    write_json(tmp_path / "files.json", {"sha256_of": {name: hash_file(path) for name, path in files.items()}})
    return tmp_path


def test_its_runs_lie_as_in_runs(whole):
    slices, studies = default_runs(whole)
    assert (slices, studies) == (whole / "slices/fold0", whole / "studies/fold0")
    assert default_calibration(whole) == {label: Calibration(2.0, place) for place, label in enumerate(LABELS)}


def test_one_that_is_not_there_is_told_with_the_command_that_makes_it(tmp_path):
    for read in (default_runs, default_calibration):
        with pytest.raises(InputError, match=r"make it with: python models/make_default_network\.py, or .*--weights"):
            read(tmp_path)


@pytest.mark.parametrize("change", ["a byte", "gone"])
@pytest.mark.parametrize("place", range(7))
def test_a_changed_file_is_refused(whole, change, place):
    path = list(needed_files(whole).values())[place]
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    for read in (default_runs, default_calibration):
        with pytest.raises(InputError, match=rf"{path.name} is damaged"):
            read(whole)


def test_it_lies_where_pip_packs_it():
    assert FOLDER == REPOSITORY / "models/inference/default_network"
