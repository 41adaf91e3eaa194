"""Blood that sinks ends at one level of the scanner, and there is as much of it as was drawn."""

from dataclasses import replace

import numpy as np
import pytest

from models.common.labels import LABELS
from models.phantom.anatomy import Head, draw_head, unwarped, warp
from models.phantom.bleeds import SINKING, Bleed, draw_bleeds
from models.phantom.levels import level_of_volume, settled
from models.phantom.points import Points
from models.phantom.scan import Scan, draw_scan
from models.phantom.study import SHARE_WITH_BLOOD, draw_patient, draw_slice, draw_study, stream

SIZE = 128
INTRAVENTRICULAR = Bleed("intraventricular", (1, 0, 0), (12, 0, 0), 75.0, 0.0, 0.5 * SINKING, 0.0)


def turned(head: Head, degrees: float, tilt: float) -> Scan:
    """A scan of a head that is turned about the axis of a scanner whose gantry is tilted, in degrees."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    scan = draw_scan(stream(5, 1), head)
    return replace(scan, rotation=rotation, tilt=np.radians(tilt), thickness=1.0, motion=None, kernel=0.4)


@pytest.fixture
def head() -> Head:
    """A head with large ventricles, and with nothing in them or near them that is as dense as blood."""
    plain = {"choroid": (0, 0), "pineal": 0, "ganglia": 0, "electrode": 0, "falx": 35, "sinus": 35, "lean": 0.0}
    return replace(draw_head(stream(4, 0)), ventricle=2.0, **plain)


def test_a_head_that_is_undone_is_the_head_again():
    places = np.random.default_rng(0).uniform([[-70], [-85], [-60]], [[70], [85], [90]], (3, 1000)).astype(np.float32)
    for seed in range(20):
        head = draw_head(stream(seed, 0))
        again = warp(head, unwarped(head, Points(*places)))
        assert np.abs(np.stack([*again]) - places).max() < 0.2


def test_every_intraventricular_bleed_is_seen():
    """The eight smallest of the 200 first studies of which blood sinks into the ventricles."""
    volumes = {}
    for seed in range(200):
        bleeds = draw_bleeds(stream(seed, 2), draw_head(stream(seed, 0)), SHARE_WITH_BLOOD)
        for bleed in bleeds:
            if bleed.kind == "intraventricular" and bleed.style < SINKING:
                volumes[seed] = bleed.size[0]
    assert len(volumes) > 20
    for seed in sorted(volumes, key=volumes.__getitem__)[:8]:
        assert draw_study(seed, 32).labels[:, LABELS.index("intraventricular")].any(), seed


@pytest.mark.parametrize(("degrees", "tilt"), [(0, 0), (20, 0), (-20, -15)])
def test_what_sinks_ends_in_one_row_of_all_pictures(head, degrees, tilt):
    scan = turned(head, degrees, tilt)
    bleeds = settled((replace(INTRAVENTRICULAR, size=(30, 0, 0)),), head, scan)
    rows = []
    for height in range(0, 40, 8):
        with_blood, without = (draw_slice(head, which, scan, height, SIZE)[0] for which in (bleeds, ()))
        changed = with_blood - without > 30
        for column in np.flatnonzero(changed.sum(axis=0) > 2):
            first = np.argmax(changed[:, column])
            if (with_blood[first - 3 : first - 1, column] < 18).all():  # fluid, not the wall of a ventricle
                rows.append(first * scan.field_of_view / SIZE)  # mm
    assert len(rows) >= 15
    assert np.std(rows) < 2  # the level is ragged by one or two mm


@pytest.mark.parametrize("shape", [{"dome": 0.45, "top": 83.0}, {"scale": 0.9}, {"scale": 1.1}])
def test_as_much_sinks_into_the_ventricles_as_was_drawn(head, shape):
    """In millilitres of the patient, however large the head is."""
    head = replace(head, **shape)
    scan = turned(head, 35, -15)
    (bleed,) = settled((INTRAVENTRICULAR,), head, scan)
    heights = np.arange(-30, 60, 3.0)
    pixels = sum(draw_slice(head, (bleed,), scan, height, 64)[1].sum() for height in heights)
    assert pixels * (scan.field_of_view / 64) ** 2 * 3 / 1000 == pytest.approx(INTRAVENTRICULAR.size[0], rel=0.12)


def test_what_sinks_into_the_ventricles_of_a_study_has_settled():
    drawn = [bleed for seed in range(60) for bleed in draw_patient(seed)[2]]
    sinking = [bleed.level for bleed in drawn if bleed.kind == "intraventricular" and bleed.size[0]]
    assert len(sinking) > 5
    assert np.isfinite(sinking).all()


def test_more_than_the_ventricles_hold_fills_them(head):
    scan = turned(head, 0, 0)
    assert level_of_volume(1000, (), head, scan) == np.inf
    assert level_of_volume(5, (), head, scan) < level_of_volume(10, (), head, scan) < np.inf


@pytest.mark.parametrize("kind", ["subdural", "intraparenchymal"])
def test_a_level_is_told_from_the_middle_of_what_settles(head, kind):
    bleed = Bleed(kind, (1 if kind == "subdural" else 20, 10.0, 40.0), (10, 12, 14), 60, 2, 0.9, 0, level=3.0, thin=30)
    for tilt in (0.0, -15.0):
        scan = replace(turned(head, 0, tilt), scale=1.0)
        (level,) = (each.level for each in settled((bleed,), head, scan))
        climb = scan.climb(40.0 * head.top / 90)  # by how much the plane of its level has left the middle there
        assert level - 3 == pytest.approx((0 if kind == "subdural" else 10) + climb, abs=7)
    (whole,) = settled((replace(bleed, level=np.inf),), head, scan)
    assert whole.level == np.inf
