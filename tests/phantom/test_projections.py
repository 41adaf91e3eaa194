"""What projections do to a slice is what physics says: laws that hold whatever the numbers of a scan are."""

from dataclasses import replace

import numpy as np
import pytest

from models.phantom import dials
from models.phantom.anatomy import draw_head
from models.phantom.artefacts import add_artefacts
from models.phantom.projections import HEAD, METAL_RADIUS, add_projection_errors, beam_of_scanner, in_plane
from models.phantom.scan import Motion, Scan, draw_scan, scanner_geometry, table
from models.phantom.study import draw_slice, stream

SIZE = 96
ACROSS = 230 / SIZE * (np.arange(SIZE) - (SIZE - 1) / 2)  # mm
NO_METAL = np.zeros((0, 3))


def scan_with(**fields) -> Scan:
    """A level scan that is projected, without scatter, noise, metal and motion, but for some fields."""
    rng = stream(0, 1)
    plain = {"field_of_view": 230.0, "tilt": 0.0, "projected": True, "hardening": 1.0, "scatter": 0.0, "noise": 0.0}
    return replace(draw_scan(rng, draw_head(rng)), **(plain | {"metal": NO_METAL, "motion": None} | fields))


def disc(radius: float, value: float, x: float = 0.0, y: float = 0.0, ground: float = -1000.0) -> np.ndarray:
    """A disc (SIZE, SIZE), HU, of a radius around a place, mm, in air."""
    inside = np.hypot(ACROSS - x, ACROSS[:, None] - y) < radius
    return np.where(inside, value, ground).astype(np.float32)


def change_of(image: np.ndarray, scan: Scan, height: float = 0.0) -> np.ndarray:
    """What projections add to a slice at a height, mm. # (SIZE, SIZE) HU"""
    after = image.copy()
    add_projection_errors(after, np.random.default_rng(0), scan, height)
    return after - image


@pytest.fixture
def petrous() -> np.ndarray:
    """Water between two cylinders of bone, on the left and on the right."""
    image = disc(85, 0)
    for x in (-45, 45):
        image = np.maximum(image, disc(14, 1500, x))
    return image


def between(change: np.ndarray) -> float:
    """Its mean in the middle between the two bones of `petrous`."""
    return float(change[46:50, 44:52].mean())


def test_water_is_read_as_water_however_much_there_is():
    for radius in (30, 60, 100):
        assert np.abs(change_of(disc(radius, 0), scan_with())).max() < 1.5


def test_bone_behind_a_head_of_water_keeps_its_value():
    beam = beam_of_scanner()
    assert 2.2 < beam.bone < 3.0  # cortical bone has 1200 to 2000 HU
    water, bone = HEAD
    radius = 5 * (water + bone)
    wall = 5 * bone  # mm on each side
    vault = disc(radius, 1000 * (beam.bone - 1))
    vault[disc(radius - wall, 1.0) == 1.0] = 0
    change = change_of(vault, scan_with())
    middle = np.hypot(ACROSS, ACROSS[:, None]) < 10
    assert abs(change[middle].mean()) < 12  # a ray through the middle meets as much bone as the scanner expects


def test_between_two_bones_it_is_dark_and_beside_that_line_it_is_not(petrous):
    change = change_of(petrous, scan_with())
    assert between(change) < -8
    assert change[20:24, 44:52].mean() > between(change) + 8


def test_what_the_scanner_corrects_is_not_left(petrous):
    whole, half = (change_of(petrous, scan_with(hardening=left)) for left in (1.0, 0.5))
    assert half == pytest.approx(0.5 * whole, abs=0.01)


def test_scatter_fills_the_shadow_of_bones_and_darkens_between_them(petrous):
    clean, scattered = (between(change_of(petrous, scan_with(scatter=share))) for share in (0.0, 0.05))
    assert scattered < clean - 3


def test_detectors_starve_behind_bones_and_nowhere_else(petrous):
    quiet = change_of(petrous, scan_with())
    for image, least, most in ((petrous, 0.4, 20), (disc(50, 0), 0, 1e-3)):
        scan = scan_with(noise=4.0)
        noise = change_of(image, scan) - (quiet if image is petrous else change_of(image, scan_with()))
        assert least <= noise[40:56, 30:66].std() <= most


def test_metal_is_dark_along_its_lines_and_bright_beside_them_in_its_slices_alone():
    water, metal = disc(85, 0), np.array([[-40.0, 0.0, 0.0], [40.0, 0.0, 0.0]])
    scan = scan_with(projected=False, metal=metal)
    change = change_of(water, scan)
    column = np.abs(ACROSS - 40).argmin()
    assert (water + change)[47:49, column].max() > 2000
    assert between(change) < -12
    beside = change[(water == 0) & (np.abs(ACROSS[:, None]) > 8) & (np.abs(ACROSS) < 60)]
    assert beside.max() > 10
    away = replace(scan, metal=metal + np.array([0, 0, scan.thickness + 10]))
    assert not change_of(water, away).any()


def test_without_projections_a_slice_stays_as_it_is(petrous):
    assert not change_of(petrous, scan_with(projected=False, scatter=1.0, noise=5.0)).any()


def test_metal_lies_where_the_head_has_it_in_tilted_slices_and_after_a_motion():
    scan = scan_with(projected=False, tilt=np.radians(-15), metal=np.array([[10.0, -20.0, 60.0]]))
    for motion, x, y in ((None, 10.0, -20.0), (Motion(0, 10, 90.0, (5.0, 0.0)), -15.0, -10.0)):
        change = change_of(disc(85, 0), replace(scan, motion=motion), height=60.0)
        row, column = np.unravel_index(change.argmax(), change.shape)
        assert ACROSS[column] == pytest.approx(x, abs=METAL_RADIUS)
        assert ACROSS[row] + scan.climb(60.0) == pytest.approx(y, abs=METAL_RADIUS)


@pytest.mark.parametrize("tilt", [0.0, -15.0])
def test_a_motion_blurs_its_slices_and_those_above_lie_as_it_left_them(tilt):
    head, motion = draw_head(stream(3, 0)), Motion(20, 30, 3.0, (4.0, -2.0))
    # The head lies straight, so that what moves in the plane of the scanner moves along no other axis.
    scan = scan_with(projected=False, motion=motion, tilt=np.radians(tilt), rotation=np.eye(3), thickness=1.0)
    before, after = (draw_slice(head, (), scan.at(height), 30.0, SIZE)[0] for height in (30.0, 31.0))
    expected = in_plane(before + 1000, scan, 30.0) - 1000
    inside = np.hypot(ACROSS, ACROSS[:, None]) < 80
    assert np.abs(expected - after)[inside].mean() < 0.4 * np.abs(before - after)[inside].mean()
    assert np.abs(change_of(before, scan, 30.0)).max() > 50
    assert not change_of(before, scan, 31.0).any()
    rest = table(scan, *np.meshgrid(ACROSS, ACROSS))
    assert (rest > -900).any()
    assert np.abs(change_of(rest, scan, 30.0)).max() < 1  # the table lies still


@pytest.mark.parametrize("tilt", [0.0, -15.0])
def test_the_table_stays_where_the_patient_lies_on_it_however_the_gantry_is_tilted(tilt):
    board = (0.9, 105.0, 100.0, 500.0)  # flat
    scan = scan_with(tilt=np.radians(tilt), table=board, heights=np.array([-60.0, 0.0, 90.0]), scatter=0.0)
    positions, orientation = scanner_geometry(scan, 230 / SIZE)
    head = draw_head(stream(3, 0))
    for height, corner in zip(scan.heights, positions, strict=True):
        image, _ = draw_slice(head, (), scan, height, SIZE)
        rows = np.flatnonzero(image[:, 3] > -300)  # beside the head
        behind = corner[1] - scan.frame[1] + rows.mean() * 230 / SIZE * orientation[4]  # of the patient's frame
        assert behind == pytest.approx(105 * np.cos(scan.tilt), abs=2)


def test_bands_between_the_petrous_bones_climb_with_them():
    level, tilted = (scan_with(projected=False, glow=0.0, tilt=np.radians(tilt)) for tilt in (0.0, -15.0))
    rows = []
    for scan in (level, tilted):
        image = disc(90, 30.0)[None].copy()
        add_artefacts(image, stream(0, 3), replace(scan, heights=np.array([-30.0]), shade=(0.0, 0.0), calibration=0.0))
        band = np.square(image[0, 20:76, 40:56] - 30).mean(axis=1)
        rows.append((ACROSS[20:76] * band).sum() / band.sum())
    assert rows[1] - rows[0] == pytest.approx(-tilted.climb(-30.0), abs=3)


def test_the_glow_that_stands_in_for_projections_is_fitted_to_them():
    """Its dial says .07 where nothing is corrected: what projections add in proportion to the bone around."""
    found = []
    for seed in range(4):
        head = draw_head(stream(seed, 0))
        scan = replace(draw_scan(stream(seed, 1), head), projected=True, hardening=1.0, scatter=0.02, noise=0.0)
        scan = replace(scan, metal=NO_METAL, motion=None, shade=(0.0, 0.0), calibration=0.0)
        for height in (15.0, 50.0):
            image, _ = draw_slice(head, (), scan, height, SIZE)
            scan = replace(scan, heights=np.array([height]))
            soft = (image > 5) & (image < 70)
            glow = image[None].copy()
            add_artefacts(glow, stream(seed, 3), replace(scan, projected=False, glow=1.0))
            found.append(np.polyfit(glow[0][soft] - image[soft], change_of(image, scan, height)[soft], 1)[0])
    assert 0.05 < np.median(found) < 0.1
    assert dials.GLOW.high < np.median(found)
