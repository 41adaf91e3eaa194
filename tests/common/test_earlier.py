"""Laws of earlier sessions: what they hold and this one lacks is taken, whole or not at all; they stay as they are."""

import os
import shutil
import stat
from pathlib import Path

import pytest
from written import contents

from models.common.earlier import go_on_from
from models.common.errors import InputError
from models.common.files import write_text
from models.common.folders import Work
from models.common.session import Session


def write(folder: Path, *names: str) -> Path:
    """Files whose text says where they stand, in the working folder of an earlier session."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{folder.name}/{name}")
    return folder


@pytest.fixture
def earlier(tmp_path) -> Path:
    return write(
        tmp_path / "earlier",
        *("cache/folds.csv", "cache/slices_32/ID_a.slices", "cache/.hidden.writing-x", "pseudonyms.key"),
        *("runs/small/fold0/checkpoint_000001.json", "runs/small/fold0/test.parts/ID_a.parquet"),
        *("runs/small/.fold0.lock", "runs/small/fold1/config.json", "blend/blend.json"),
    )


TAKEN = {
    *("cache/folds.csv", "cache/slices_32/ID_a.slices", "pseudonyms.key", "runs/small/fold0/checkpoint_000001.json"),
    *("runs/small/fold0/test.parts/ID_a.parquet", "runs/small/fold1/config.json"),
}


def seen(work: Work) -> set[str]:
    """The files of a working folder, but for locks."""
    return {name for name in contents(work.root) if "/." not in name}


def test_runs_are_copied_and_the_cache_is_linked(earlier, tmp_path, capsys):
    work, before = Work(tmp_path / "work"), contents(earlier)
    go_on_from(Session(work_from=(earlier,)), work)
    assert seen(work) == TAKEN
    assert capsys.readouterr().out == f"{earlier}: 2 folds of runs copied, 2 files of the cache linked\n"
    linked = {name for name in TAKEN if (work.root / name).is_symlink()}
    assert linked == {name for name in TAKEN if name.startswith("cache")}
    for name in TAKEN:  # whatever is done with them here
        write_text(work.root / name, "made anew")
    assert contents(earlier) == before
    go_on_from(Session(work_from=(earlier,)), work)
    assert {contents(work.root)[name] for name in TAKEN} == {b"made anew"}
    assert capsys.readouterr().out == ""


def test_tables_that_prepare_has_deleted_do_not_come_back(earlier, tmp_path):
    """They tell of other stores than those that lie here now."""
    work = Work(tmp_path / "work")
    write(earlier, "cache/stage_1/metadata_test.parquet", "cache/pseudolabels_small_fold0.parquet")
    go_on_from(Session(work_from=(earlier,)), work)
    work.begun.touch()
    deleted = {"cache/folds.csv", "cache/stage_1/metadata_test.parquet"}
    for name in (*deleted, "cache/slices_32/ID_a.slices", "cache/pseudolabels_small_fold0.parquet"):
        (work.root / name).unlink()
    go_on_from(Session(work_from=(earlier,)), work)
    assert seen(work) == TAKEN - deleted | {"cache/pseudolabels_small_fold0.parquet", work.begun.name}


def test_of_two_that_have_it_the_first_counts(earlier, tmp_path):
    other = write(tmp_path / "other", "cache/folds.csv", "cache/more.csv", "runs/small/fold0/config.json")
    work = Work(tmp_path / "work")
    go_on_from(
        Session(
            work_from=(
                other,
                earlier,
            )
        ),
        work,
    )
    assert (work.cache / "folds.csv").read_text() == "other/cache/folds.csv"
    assert (work.cache / "slices_32/ID_a.slices").read_text() == "earlier/cache/slices_32/ID_a.slices"
    assert set(contents(work.run("small", 0))) == {"config.json"}  # a fold is one session's, never a mixture
    assert (work.run("small", 1) / "config.json").read_text() == "earlier/runs/small/fold1/config.json"


def test_a_folder_without_files_is_no_fold(earlier, tmp_path):
    """A run that was refused, or killed before its first checkpoint, leaves one: here, or in a later session."""
    refused, work = tmp_path / "refused", Work(tmp_path / "work")
    for root in (refused, work.root):
        write(root, "runs/small/fold0/.checkpoint_000001.json.writing-x")
    (refused / "runs/small/fold1/test.parts").mkdir(parents=True)
    go_on_from(Session(work_from=(refused, earlier)), work)
    assert seen(work) == TAKEN
    assert not list(work.runs.rglob(".checkpoint_*"))


def test_what_is_read_only_there_can_be_written_here(earlier, tmp_path):
    for path in [*earlier.rglob("*"), earlier]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    work = Work(tmp_path / "work")
    go_on_from(Session(work_from=(earlier,)), work)
    for path in work.runs.rglob("*"):
        assert path.stat().st_mode & stat.S_IWUSR, path
    for path in [earlier, *earlier.rglob("*")]:
        path.chmod(0o755)


def test_a_copy_that_is_cut_short_leaves_nothing_that_looks_like_a_fold(earlier, tmp_path, monkeypatch):
    def fail(_: Path, copy: Path, **__: object) -> None:
        write(copy, "config.json")
        raise KeyboardInterrupt

    work = Work(tmp_path / "work")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", fail)
        with pytest.raises(KeyboardInterrupt):
            go_on_from(Session(work_from=(earlier,)), work)
    assert not list(work.runs.rglob("*/[!.]*"))
    assert not list(work.runs.rglob("*.draft"))
    go_on_from(Session(work_from=(earlier,)), work)
    assert seen(work) == TAKEN


def test_what_a_killed_copy_has_left_is_swept(earlier, tmp_path):
    work = Work(tmp_path / "work")
    write(work.runs / "small" / ".fold0.draft", "large.safetensors")
    go_on_from(Session(work_from=(earlier,)), work)
    assert not list(work.runs.rglob("*.draft"))
    assert seen(work) == TAKEN


def test_runs_that_have_no_room_are_refused_before_they_are_copied(earlier, tmp_path, monkeypatch):
    work = Work(tmp_path / "work")
    with pytest.raises(InputError, match=r"runs of .*earlier will take about .* of which .* are to stay so: make room"):
        go_on_from(Session(work_from=(earlier,), keep_free_gb=1e9), work)
    assert seen(work) == set()

    def fill(_: Path, copy: Path, **__: object) -> None:
        raise shutil.Error([("a", "b", "[Errno 28] No space left on device")])

    monkeypatch.setattr(shutil, "copytree", fill)
    with pytest.raises(
        InputError, match=r"fold0 cannot be copied to .*: \[Errno 28\] No space left on device; make room"
    ):
        go_on_from(Session(work_from=(earlier,)), work)


def test_of_a_chain_of_sessions_the_last_one_is_enough(earlier, tmp_path):
    """The secret by which own files are named is copied: what it was linked to may not be attached any more."""
    second, third = Work(tmp_path / "second"), Work(tmp_path / "third")
    go_on_from(Session(work_from=(earlier,)), second)
    (earlier / "pseudonyms.key").rename(tmp_path / "gone")
    go_on_from(Session(work_from=(second.root,)), third)
    assert (third.root / "pseudonyms.key").read_text() == "earlier/pseudonyms.key"
    assert (third.root / "pseudonyms.key").stat().st_mode & 0o077 == 0


def test_links_that_lead_nowhere_are_made_anew(earlier, tmp_path):
    work = Work(tmp_path / "work")
    work.cache.mkdir(parents=True)
    (work.cache / "folds.csv").symlink_to(tmp_path / "gone")
    os.symlink(tmp_path / "gone", earlier / "cache" / "lost.csv")
    go_on_from(Session(work_from=(earlier,)), work)
    assert (work.cache / "folds.csv").read_text() == "earlier/cache/folds.csv"
    assert not (work.cache / "lost.csv").is_symlink()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", r"empty holds neither cache/ nor runs/; name working folders of earlier sessions with --work-from"),
        ("earlier", r"earlier is the working folder itself; name an earlier one with --work-from"),
    ],
)
def test_a_folder_of_no_earlier_session_is_refused(name, message, earlier, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        go_on_from(Session(work_from=(tmp_path / name,)), Work(earlier))
