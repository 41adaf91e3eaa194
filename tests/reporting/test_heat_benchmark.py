"""Laws of benchmarks/heat.py: it knows where the blood is, and counts the heat that lies there."""

import json
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from models.common.errors import InputError
from models.common.labels import ANY
from models.phantom.dicom import VERSION, identify
from models.phantom.study import LEAST_BLOOD, draw_study

FOLDER = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture
def heat(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    yield import_module("heat")
    del sys.modules["heat"]


def test_blood_is_where_the_phantom_has_painted_it(heat):
    compared = 0
    for number in range(4):
        name = identify(0, "train", number)
        study = draw_study(name.seed, 64, name.patient_seed)
        masks = heat.draw_blood({"seed": 0, "image_size": 64}, number)
        assert list(masks) == [name.image_id(index) for index in range(len(study.labels))]
        for mask, labels in zip(masks.values(), study.labels, strict=True):
            area = mask.sum() * study.pixel_spacing**2
            assert area >= 0.9 * LEAST_BLOOD * labels[ANY]
            assert labels[ANY] or area < 5 * LEAST_BLOOD
            compared += labels[ANY]
    assert compared > 10


def test_blood_is_not_looked_for_where_another_version_has_drawn_it(heat, tmp_path):
    with pytest.raises(InputError, match="is no phantom"):
        heat.main(heat.HeatOptions(data=tmp_path, work=tmp_path))
    for version in (VERSION - 1, VERSION + 1):
        (tmp_path / "phantom.json").write_text(json.dumps({"version": version, "studies": 1, "seed": 0}))
        with pytest.raises(InputError, match=f"of version {version} of the drawing"):
            heat.main(heat.HeatOptions(data=tmp_path, work=tmp_path))


def test_heat_is_counted_inside_of_the_bleed(heat):
    inside = np.zeros((8, 8), bool)
    inside[2, 2:4] = True
    map_ = np.zeros((8, 8))
    map_[2, 2], map_[5, 5] = 3, 1
    found = heat.shares({"a": [map_], "none": [np.zeros((8, 8))], "two": [map_, 1 - inside]}, inside)
    assert found == pytest.approx(
        {"a: inside": 0.75, "a: hit": 1, "none: inside": 0, "none: hit": 0, "two: inside": 0.375, "two: hit": 0.5}
    )
    assert np.unravel_index(heat.middle(9).argmax(), (9, 9)) == (4, 4)
