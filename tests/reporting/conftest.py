"""What the tests of the report share: the page of a run."""

from pathlib import Path

import pandas as pd
import pytest
from report_pages import copy_of, write_run

from models.preprocessing.tables import read_slices
from models.report import ReportOptions, report


@pytest.fixture(scope="session")
def metadata(prepared) -> pd.DataFrame:
    return read_slices(prepared, "train")


@pytest.fixture(scope="session")
def plain(prepared, metadata, tmp_path_factory) -> Path:
    """The page of a run."""
    work = copy_of(prepared, tmp_path_factory.mktemp("plain"), metadata)
    write_run(work, "small", metadata)
    report(ReportOptions("small", work=work.root))
    return work.root / "report_small.html"
