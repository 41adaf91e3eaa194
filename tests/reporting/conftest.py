"""What the tests of the report share: the page of a run."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from browsing import FLAGS
from report_pages import copy_of, write_run
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

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


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Headless Chromium that notes its requests and what its console says."""
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if missing := [name for name, path in programs.items() if path is None]:
        pytest.skip(f"no {missing[0]} on this machine; install the system's packages of chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs["chromedriver"]))
    driver.get("about:blank")  # its own first page has requests of its own
    yield driver
    driver.quit()
