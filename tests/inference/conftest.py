"""What the tests of answers share: who answers."""

from pathlib import Path

import pytest

from models.inference.answering import Court, open_court


@pytest.fixture
def court(run_folder: Path) -> Court:
    """The small network."""
    return open_court([run_folder], "cpu", "none", synthetic=True)
