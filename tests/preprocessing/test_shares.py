"""Laws of shares: together they are all series, each once, and joined they are the cache of one preparing."""

import shutil
from itertools import chain
from pathlib import Path

import pytest
from written import contents

from models.common.errors import InputError
from models.common.folders import Work
from models.common.session import Session
from models.phantom.dicom import write_phantom
from models.plan import measured_milliseconds
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.report import bytes_a_slice
from models.preprocessing.shares import Share, read_share
from models.training.planning import CHALLENGE, GB, plan_of_prepare


def test_every_series_is_in_one_share_and_shares_are_of_nearly_one_size():
    names = [f"ID_{number:08x}" for number in range(21_744)]
    held = [[name for name in names if Share(number, 4).holds(name)] for number in range(1, 5)]
    assert sorted(chain(*held)) == names
    assert all(abs(len(some) - len(names) / 4) < 0.05 * len(names) / 4 for some in held)


@pytest.mark.parametrize("text", ["0/4", "5/4", "2", "1/0", "-1/4", "a/b", "1/4/2", ""])
def test_a_share_that_cannot_be_is_refused(text):
    with pytest.raises(InputError, match=rf"--part {text} is none of several; name one like 2/4"):
        read_share(text)


def test_joined_shares_are_the_cache_of_one_preparing(phantom, prepared, tmp_path, capsys):
    def options(name: str, **more) -> PrepareOptions:
        return PrepareOptions(data=phantom, work=tmp_path / name, image_size=(64,), jobs=1, **more)

    parts = [f"{number}/3" for number in (1, 2, 3)]
    for number, part in enumerate(parts):
        assert prepare(options(str(number), part=part)) == 0
        said = f"part {part}, {len(stored(tmp_path / str(number)))} of 30 series; when all 3 are made, join them with:"
        assert said in capsys.readouterr().out
        assert not (tmp_path / str(number) / "cache" / "prepare.json").exists()
    assert sum(len(stored(tmp_path / str(number))) for number in range(3)) == 30
    before = [contents(tmp_path / str(number)) for number in range(3)]
    folders = tuple(tmp_path / str(number) for number in range(3))
    assert prepare(options("joined", session=Session(work_from=folders))) == 0
    whole, expected = (
        {name: data for name, data in contents(cache).items() if not Path(name).name.startswith(".")}
        for cache in (tmp_path / "joined" / "cache", prepared.slices(64).resolve().parent)  # `prepared` holds links
    )
    assert len(whole) > 60
    assert {name for name in whole | expected if whole.get(name) != expected.get(name)} == set()
    assert [contents(folder) for folder in folders] == before
    assert all((tmp_path / "joined/cache/slices_64" / name).is_symlink() for name in stored(tmp_path / "joined"))


def test_shares_of_own_files_are_named_by_one_key(tmp_path):
    write_phantom(tmp_path / "data", studies=5, test_studies=1, image_size=32, layout="tree", jobs=1)

    def options(name: str, **more) -> PrepareOptions:
        return PrepareOptions(data=tmp_path / "data", work=tmp_path / name, image_size=(32,), jobs=1, **more)

    prepare(options("1", part="1/2"))
    with pytest.raises(InputError, match=r"--part 2/2 of own files needs the key .* copy pseudonyms.key of its --work"):
        prepare(options("2", part="2/2"))
    (tmp_path / "2").mkdir(exist_ok=True)
    shutil.copy(Work(tmp_path / "1").key, tmp_path / "2")
    prepare(options("2", part="2/2"))
    held = [path.name for name in "12" for path in Work(tmp_path / name).slices(32).glob("*.slices")]
    prepare(options("joined", session=Session(work_from=(tmp_path / "1", tmp_path / "2"))))
    joined = list(Work(tmp_path / "joined").slices(32).glob("*.slices"))
    assert sorted(held) == sorted(path.name for path in joined)
    assert len(held) == 6
    assert all(path.is_symlink() for path in joined)


def stored(work: Path) -> list[str]:
    return [path.name for path in Work(work).slices(64).glob("*.slices")]


def test_a_fourth_at_512_pixels_is_below_100_gigabytes_and_a_third_at_224_is_kept_by_a_session():
    every = CHALLENGE.train + CHALLENGE.test
    whole = plan_of_prepare(512, CHALLENGE, *measured_milliseconds("prepare_vs_fastai")[:1], 4, "").disk
    assert whole == pytest.approx(every * bytes_a_slice(512) / GB)
    assert whole / 4 < 100
    assert every * bytes_a_slice(224) / GB / 3 < 19
    assert every * bytes_a_slice(224) / GB < 50
