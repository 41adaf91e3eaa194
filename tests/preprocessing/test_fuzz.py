"""Laws of reading damaged files: whatever happened to its bytes, a file gives slices or a reason, and does no harm."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pydicom.data
import pytest
from damaged import damaged, seeds
from test_hostile import Watch, listed

SECONDS = 10.0  # of CPU time for a file


@pytest.fixture(scope="module")
def sound(request, tmp_path_factory) -> list[Path]:
    """The files to damage, real ones too where the sample is present."""
    try:
        real = request.getfixturevalue("real_sample")
    except pytest.skip.Exception:
        real = None
    return seeds(tmp_path_factory.mktemp("seeds"), real)


def read_damaged(sound: list[Path], folder: Path, count: int, reader: str = "project") -> dict[str, dict]:
    """The verdict on each damaged file; the files of those that break the reader stay in the folder."""
    verdicts = {}
    with Watch(reader, SECONDS) as watch:
        for name, data in damaged(sound, count):
            path = folder / name
            path.write_bytes(data)
            verdicts[name] = watch.read(path)
            if verdicts[name]["outcome"] != "broken":
                path.unlink()
    return verdicts


def read_files(paths: Iterable[Path]) -> dict[str, dict]:
    with Watch(seconds=SECONDS) as watch:
        return {path.name: watch.read(path) for path in paths}


def shipped() -> Iterator[Path]:
    """The files inside pydicom that its own tests read."""
    folder = Path(pydicom.data.__file__).parent
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in (".py", ".pyc"))


def table(verdicts: dict[str, dict]) -> str:
    """How many files ended how, the slowest one and the one that needed most memory."""
    ends = Counter(_end(verdict) for verdict in verdicts.values())
    lines = [f"{count:6} {end}" for end, count in ends.most_common()]
    for measure in ("seconds", "megabytes"):
        name = max(verdicts, key=lambda name: verdicts[name][measure])
        lines.append(f"most {measure}: {verdicts[name][measure]} by {name}")
    return "\n".join(lines)


def _end(verdict: dict) -> str:
    return verdict["outcome"] if verdict["outcome"] == "accepted" else f"{verdict['outcome']}: {verdict['why']}"


def require_harmless(verdicts: dict[str, dict]) -> None:
    print(table(verdicts))
    harmed = {name: verdict for name, verdict in verdicts.items() if verdict["outcome"] == "broken"}
    assert not harmed, listed(harmed)


def test_sound_files_of_every_kind_are_read(sound):
    verdicts = read_files(sound)
    rejected = {
        name: verdict
        for name, verdict in verdicts.items()
        if verdict["outcome"] != "accepted"
        and verdict["why"] != "NO_DECODER"
        and not name.startswith("shipped")  # some of them are no grey-scale images
    }
    assert not rejected, listed(rejected)


def test_damaged_files_do_no_harm(sound, tmp_path):
    verdicts = read_damaged(sound, tmp_path, 150)
    require_harmless(verdicts)
    assert {verdict["outcome"] for verdict in verdicts.values()} == {"accepted", "rejected"}


def test_the_files_inside_pydicom_do_no_harm():
    verdicts = read_files(shipped())
    require_harmless(verdicts)
    assert len(verdicts) > 100


@pytest.mark.torture
def test_thousands_of_damaged_files_do_no_harm(sound, tmp_path):
    for place in ("project", "pydicom"):
        (tmp_path / place).mkdir()
    plain = read_damaged(sound, tmp_path / "pydicom", 2000, "pydicom")
    print("plain pydicom:", table(plain), "this reader:", sep="\n")
    require_harmless(read_damaged(sound, tmp_path / "project", 2000))
