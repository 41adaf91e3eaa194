"""Laws of the traps: each is in the written files, is recorded, and touches nothing else. Read with plain pydicom."""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import imagecodecs
import numpy as np
import pydicom
import pytest
import tyro
from pydicom.uid import UID
from trap_checks import COMPRESSED, SEE, SIZE, SLICES, items, record, slices
from written import contents

from models.common.errors import InputError
from models.phantom import dicom
from models.phantom.dicom import FAMILIES, write_phantom
from models.phantom.jpeg import encode_jpeg_lossless
from models.phantom.layouts import LAYOUTS
from models.phantom.options import LayoutName, PhantomOptions, Trap
from models.phantom.study import draw_study
from models.phantom.traps import IN_TABLES, REFUSED, TRAPS


@pytest.fixture(scope="module", autouse=True)
def quiet():
    """The RSNA's identifiers are not valid UIDs, and a canary is no date: pydicom must not say so for every one."""
    with pydicom.config.disable_value_validation():
        yield


@pytest.fixture(scope="module")
def write():
    """`write_phantom` for tiny phantoms of three heads that are drawn once."""
    part = slice(6, 6 + SLICES)
    studies = [
        replace(s, hounsfield=s.hounsfield[part], labels=s.labels[part], positions=s.positions[part])
        for s in (draw_study(seed, SIZE) for seed in range(3))
    ]

    def write(folder: Path, traps=(), studies=6, test_studies=2, **arguments) -> Path:
        write_phantom(folder, studies, test_studies, SIZE, jobs=1, traps=traps, **arguments)
        return folder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dicom, "draw_study", lambda seed, size, patient_seed: studies[seed % 3])
        yield write


@pytest.fixture(scope="module")
def plain(write, tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("plain") / "data")


@pytest.fixture(scope="module")
def trapped(write, plain, tmp_path_factory) -> Callable[[str], Path]:
    """The same phantom with one trap."""
    made: dict[str, Path] = {}

    def trapped(trap: str) -> Path:
        if trap not in made:
            made[trap] = write(tmp_path_factory.mktemp(trap) / "data", [trap])
        return made[trap]

    return trapped


@pytest.fixture(scope="module")
def all_traps(write, tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("all") / "data", ["all"], studies=22, test_studies=6)


def test_there_is_a_test_for_every_trap_and_every_trap_says_what_it_is():
    assert set(SEE) == set(TRAPS)
    assert all(trap.__doc__ for trap in TRAPS.values())


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_alone_is_in_the_files(trap, trapped, plain):
    SEE[trap](trapped(trap), plain)
    assert set(record(trapped(trap))["trap"]) == {trap}


@pytest.mark.parametrize("trap", COMPRESSED)
@pytest.mark.parametrize("family", [0, 1, 3], ids=["12 bits", "12 bits implicit", "16 bits signed and padded"])
def test_every_pixel_format_can_be_compressed(trap, family, write, tmp_path, monkeypatch):
    monkeypatch.setattr(dicom, "FAMILIES", FAMILIES[family : family + 1])
    folders = [write(tmp_path / name, traps, 1, 0) for name, traps in (("plain", ()), ("trap", [trap]))]
    SEE[trap](folders[1], folders[0])


@pytest.mark.parametrize("trap", [trap for trap in TRAPS if trap != "private_text"])
def test_a_trap_touches_only_what_its_record_names(trap, trapped, plain):
    before, after = contents(plain), contents(trapped(trap))
    changed = {name for name in {**before, **after} if before.get(name) != after.get(name)}
    named = set(items(trapped(trap), trap))
    headers = {path.relative_to(plain).as_posix(): data for path, data in slices(plain).items()}
    files = {name.rstrip("\n") for name in changed if name.startswith(("stage_2_train/", "stage_2_test/"))}
    if trap == "train_and_test_patient":
        assert len({headers[name].SeriesInstanceUID for name in files}) == 1
    else:
        assert all({headers[n].SOPInstanceUID, headers[n].SeriesInstanceUID} & named for n in files)
    tables = {name for name in changed if name.endswith(".csv")} - {"phantom_traps.csv"}
    assert bool(tables) == (trap in {*IN_TABLES, "enhanced"} - {"labels_without_files"})


def test_all_makes_all_traps_but_the_one_that_prepare_refuses(all_traps):
    made = record(all_traps)
    assert list(made.columns) == ["trap", "split", "item"]
    assert set(made["split"]) == {"train", "test"}
    assert set(made["trap"]) == set(TRAPS) - {"contradicting_labels"} == set(TRAPS) - set(REFUSED)
    assert json.loads((all_traps / "phantom.json").read_text())["traps"] == list(made["trap"].unique())


def test_no_slice_bears_two_traps(all_traps, write, tmp_path):
    plain = write(tmp_path / "data", studies=22, test_studies=6)
    headers = slices(plain).values()
    bearers = Counter()
    for _, trap, _, item in record(all_traps).itertuples():
        if trap not in ("private_text", "train_and_test_patient"):
            bearers.update(d.SOPInstanceUID for d in headers if item in (d.SOPInstanceUID, d.SeriesInstanceUID))
    assert set(bearers.values()) == {1}


def test_the_same_seed_gives_the_same_traps(all_traps, write, tmp_path):
    again = write(tmp_path / "again", ["all"], studies=22, test_studies=6)
    assert contents(again) == contents(all_traps)
    other = write(tmp_path / "other", ["rle"], seed=1)
    assert items(other, "rle") != items(write(tmp_path / "same", ["rle"]), "rle")


def test_the_order_of_the_names_does_not_matter(write, tmp_path, capsys):
    write(tmp_path / "data", ["constant", "rle", "constant"])
    write(tmp_path / "data", ["rle", "constant"])
    assert "already" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"traps \['rle', 'constant'\] instead of None"):
        write(tmp_path / "data")


def test_what_cannot_be_planted_is_an_error_that_leaves_nothing(write, tmp_path):
    for arguments, message in (
        ({"traps": ["rust"]}, "no trap 'rust'; choose from all, private_text"),
        ({"layout": "stage_3"}, "no layout 'stage_3'; choose from stage_2"),
        ({"traps": ["rle", "deflated"], "studies": 1, "test_studies": 0}, "no study is left for the trap deflated"),
        ({"traps": ["train_and_test_patient"], "test_studies": 0}, "no test study is left"),
        ({"traps": ["duplicate_labels"], "layout": "tree"}, "duplicate_labels needs a layout with tables"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            write(tmp_path / "data", **arguments)
    assert not any(tmp_path.iterdir())


def test_an_encoder_that_is_not_installed_is_named(write, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jpeg_ls", None)
    with pytest.raises(InputError, match="the trap jpeg_ls needs an encoder; install it with: pip install pyjpegls"):
        write(tmp_path / "data", ["jpeg_ls"])


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        (
            "stage_1",
            {
                "stage_2_train/": "stage_1_train_images/",
                "stage_2_test/": "stage_1_test_images/",
                "stage_2_": "stage_1_",
            },
        ),
        ("zip", {"stage_2_": "rsna-intracranial-hemorrhage-detection/stage_2_"}),
    ],
)
def test_a_layout_changes_names_and_nothing_else(layout, names, write, plain, tmp_path):
    def rename(name: str) -> str:
        old = next((old for old in names if name.startswith(old)), "")
        return names.get(old, "") + name.removeprefix(old)

    made = contents(write(tmp_path / "data", layout=layout))
    parameters = json.loads(made.pop("phantom.json"))
    expected = {rename(name): content for name, content in contents(plain).items()}
    told = json.loads(expected.pop("phantom.json"))
    files = sorted(rename(name) for name in told["files"])
    assert {**told, "layout": layout, "files": files} == parameters
    assert made == expected


def test_a_tree_has_folders_of_patient_study_and_series_and_no_table(write, plain, tmp_path):
    tree = write(tmp_path / "data", layout="tree")
    pixels, same = ([data.PixelData for data in slices(folder).values()] for folder in (tree, plain))
    assert sorted(pixels) == sorted(same)
    assert {name for name in contents(tree) if "/" not in name} == {"contact_sheet.png", "phantom.json"}
    series = Counter()
    for path, data in slices(tree).items():
        *folders, file = path.relative_to(tree).parts
        assert re.fullmatch(r"IM-\d{4}", file)
        assert all("CANARY^tree" in folder for folder in folders)
        names = (data.PatientID, data.StudyInstanceUID, data.SeriesInstanceUID)
        assert [name in folder for name, folder in zip(names, folders, strict=True)] == [True] * 3
        assert all(UID(name).is_valid for name in (data.SOPInstanceUID, *names[1:]))  # those of a scanner
        series[names] += 1
    assert set(series.values()) == {SLICES}
    assert len(series) == 8


def test_a_tree_can_have_all_traps_that_need_no_table(write, tmp_path):
    tree = write(tmp_path / "data", ["all"], studies=22, test_studies=6, layout="tree")
    assert set(record(tree)["trap"]) == set(TRAPS) - set(IN_TABLES)
    assert sum(path.name.endswith("\n") for path in tree.rglob("IM-*")) == 1
    assert {path.name for path in tree.glob("*.csv")} == {"phantom_traps.csv"}


def test_the_command_line_takes_traps_and_layouts():
    options = tyro.cli(PhantomOptions, args=["data", "--traps", "truncated", "constant", "--layout", "zip"])
    assert (options.traps, options.layout) == (("truncated", "constant"), "zip")
    assert (tyro.cli(PhantomOptions, args=["data"]).traps, options.folder) == ((), Path("data"))
    with pytest.raises(SystemExit):
        tyro.cli(PhantomOptions, args=["data", "--traps", "rust"])


def test_the_command_line_knows_all_traps_and_layouts():
    assert get_args(Trap) == ("all", *TRAPS)
    assert get_args(LayoutName) == tuple(LAYOUTS)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("kind", ["noise", "extremes", "flat", "ramp"])
def test_lossless_jpeg_gives_its_pixels_back(bits, kind):
    rng = np.random.default_rng(0)
    top = 2**bits - 1
    values = {
        "noise": rng.integers(0, top + 1, (13, 7)),
        "extremes": rng.choice([0, 1, top // 2, top // 2 + 1, top], (9, 31)),  # a difference of 32,768 among them
        "flat": np.full((1, 5), top),
        "ramp": np.arange(64).reshape(64, 1),
    }[kind].astype(np.uint16)
    encoded = encode_jpeg_lossless(values, bits)
    for decode in (imagecodecs.jpeg8_decode, imagecodecs.ljpeg_decode, imagecodecs.jpegsof3_decode):  # of three authors
        assert np.array_equal(decode(encoded), values)
