"""Laws of the folders: from the environment or the current one, and all that is derived below the working folder."""

from pathlib import Path

from models.common.folders import Work, default_data, default_work


def test_folders_come_from_the_environment_else_from_the_current_folder(monkeypatch):
    monkeypatch.setenv("RSNA_DATA", "/somewhere/data")
    monkeypatch.setenv("RSNA_WORK", "/somewhere/work")
    assert (default_data(), default_work()) == (Path("/somewhere/data"), Path("/somewhere/work"))
    monkeypatch.delenv("RSNA_DATA")
    monkeypatch.delenv("RSNA_WORK")
    assert (default_data(), default_work()) == (Path("data"), Path())


def test_all_that_is_derived_lies_below_the_working_folder(tmp_path):
    work = Work(tmp_path)
    derived = [work.folds, work.problems, work.metadata("train"), work.series(512, "ID_a")]
    assert all(path.is_relative_to(tmp_path / "cache") for path in derived)
    assert work.run("b2", 0).is_relative_to(tmp_path / "runs")
    assert len({*derived, work.metadata("test"), work.series(224, "ID_a"), work.series(512, "ID_b")}) == 7
