"""The tests of the phantom draw each study themselves."""

from collections.abc import Iterator

import pytest

import models.phantom.dicom
from models.phantom.study import draw_study


@pytest.fixture(scope="module", autouse=True)
def studies_are_drawn_anew(studies_are_drawn_once) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.phantom.dicom, "draw_study", draw_study)
        yield
