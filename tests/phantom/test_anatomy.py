"""The phantom's head, blood and noise are as real ones are, where that has been measured."""

from collections import Counter
from dataclasses import replace
from itertools import product

import cv2
import numpy as np
import pytest

from models.common.labels import SUBTYPES
from models.phantom.anatomy import bone_thickness, crown, draw_head, paint_vault, skull_depth, warp
from models.phantom.artefacts import add_noise
from models.phantom.bleeds import (
    ALONG_FALX,
    DENSE,
    INITIALS,
    TOGETHER,
    Bleed,
    density,
    draw_bleeds,
    subdural,
    surface_point,
)
from models.phantom.brain import SHELL, Brain, own_sulci, paint_brain
from models.phantom.points import Points
from models.phantom.scan import PROTOCOLS, TO_AIR, Scan, draw_scan
from models.phantom.study import draw_patient, draw_slice, draw_study, stream, sub_samples, warped


def test_noise_of_large_pixels_is_that_of_small_ones_averaged():
    rng = np.random.default_rng(0)
    scan = replace(draw_scan(rng, draw_head(rng)), heights=np.zeros(4))
    noise = {size: np.zeros((4, size, size), np.float32) for size in (512, 256, 128)}
    for image in noise.values():
        add_noise(image, np.random.default_rng(1), scan)
    for size in (256, 128):
        averaged = [cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in noise[512]]
        assert noise[size].std() == pytest.approx(np.std(averaged), rel=0.1)


def test_noise_has_no_high_frequencies_and_few_low_ones():
    """As soft kernels leave it: real slices have a hundredth of the power above three quarters of Nyquist's."""
    rng = np.random.default_rng(0)
    scan = replace(draw_scan(rng, draw_head(rng)), heights=np.zeros(4), grain=0.45, field_of_view=235.0)
    image = np.zeros((4, 512, 512), np.float32)
    add_noise(image, rng, scan)
    power = np.square(np.abs(np.fft.fft2(image[:, 192:320, 192:320] * np.outer(*[np.hanning(128)] * 2)))).mean(axis=0)
    frequency = 2 * np.fft.fftfreq(128)
    radius = np.hypot(frequency[:, None], frequency[None])
    share = [power[(radius > low) & (radius <= high)].sum() for low, high in [(0.125, 0.25), (0.25, 0.5), (0.75, 1)]]
    whole = power[(radius > 0.125) & (radius <= 1)].sum()
    assert np.array(share) / whole == pytest.approx([0.30, 0.56, 0.01], abs=0.04)


def test_the_outline_of_the_skull_is_convex():
    for study in (draw_study(seed, 64) for seed in range(4)):
        for image in study.hounsfield[len(study.hounsfield) // 2 :: 4]:
            outlines, _ = cv2.findContours((image > 300).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            skull = max(outlines, key=cv2.contourArea, default=np.zeros((1, 1, 2), np.int32))  # over it there is none
            if cv2.contourArea(skull) > 300:
                assert cv2.contourArea(skull) > 0.93 * cv2.contourArea(cv2.convexHull(skull))


def test_no_head_is_torn():
    """Neighbours stay neighbours, wherever they lie: points 10 um apart are not moved apart."""
    places = np.random.default_rng(0).uniform([[-80], [-100], [-60]], [[80], [100], [120]], (3, 2000))
    places[np.arange(2000) % 3, np.arange(2000)] = 0.0  # astride each of the three planes
    for seed in range(3):
        head = replace(draw_head(stream(seed, 0)), skew=0.08)
        for axis in range(3):
            low, high = (places + step * np.eye(3)[:, [axis]] for step in (-0.005, 0.005))
            before, after = (warp(head, Points(*at.astype(np.float32))) for at in (low, high))
            for name in "xyz":
                assert np.abs(getattr(after, name) - getattr(before, name)).max() < 0.1


def test_every_head_has_a_top_and_it_is_where_its_size_says():
    z = np.arange(40, 200, 0.5, dtype=np.float32)
    off = []
    for seed in range(60):
        head = draw_head(stream(seed, 0))
        bone, skin = [], []
        for x, y in product((-20, 0, 20), (-50, -35, -20, -5, 10)):
            p = Points(np.full_like(z, x), np.full_like(z, y), z)
            depth = skull_depth(head, warp(head, p))
            bone.append(z[depth > 0].max(initial=0))
            skin.append(z[depth > -head.scalp].max(initial=0))
        assert max(bone) == pytest.approx(crown(head), abs=1)
        assert max(skin) == pytest.approx(crown(head) + head.scalp, abs=5)
        off.append(max(bone) - head.top)
    assert np.mean(off) == pytest.approx(0, abs=2)  # its deformation moves it by a few mm


def test_layers_of_a_thick_slice_lie_where_each_of_them_does():
    """Near the vertex a millimetre of one head is two of another: 10 mm around a point move as the points do."""
    head = draw_head(stream(0, 0))
    head = replace(head, dome=0.05, top=83.0, half_width=64.0)
    for z in (30.0, 78.0):
        at = np.array([[20.0] * 5, [10.0] * 5, z + np.array([-5, -2.5, 0, 2.5, 5])], np.float32)
        moved, _ = warped(head, at, samples=5)
        due = warp(head, Points(*at))
        assert moved.z == pytest.approx(due.z, abs=0.5)
        assert moved.x == pytest.approx(due.x, abs=0.5)


def test_a_patient_has_one_size_on_two_days():
    first, second = (draw_patient(seed, patient_seed=7) for seed in (1, 2))
    assert first[0].scale == first[1].scale == second[1].scale
    assert first[1].thickness != second[1].thickness  # for all else is another day's


def test_blood_under_the_skull_is_centred_on_its_inner_table():
    for seed in range(10):
        head = draw_head(stream(seed, 0))
        for angle, height in product((-1.2, 0.2, 1.4, 2.9), (8, 40, 78)):
            point = surface_point(head, angle, height)
            assert point[2] == height
            assert np.arctan2(point[1], point[0]) == pytest.approx(angle, abs=1e-5)
            p = Points(*(np.array([part], np.float32) for part in point))
            inner = skull_depth(head, p) - bone_thickness(head, p)
            assert 0 < inner[0] < 2


def test_sulci_of_the_convexity_are_narrow_and_run_inwards():
    head = draw_head(np.random.default_rng(3))
    directions = np.random.default_rng(0).normal(size=(4000, 3)) * [1, 1, 0.3] + [0, 0, 1]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    at = {depth: np.array(SHELL) + (70 - depth) * directions for depth in (4, 14, 40)}
    found = {
        depth: own_sulci(head, Points(*place.T.astype(np.float32)), np.full(len(place), depth, np.float32))
        for depth, place in at.items()
    }
    assert 0.05 < (found[4] < 1).mean() < 0.3
    assert np.corrcoef(found[4], found[14])[0, 1] > 0.6
    assert (found[40] > 10).all()  # none runs as deep


def test_kinds_of_blood_come_together_as_they_were_counted():
    rng = np.random.default_rng(0)
    head = draw_head(rng)
    initial = dict(zip(SUBTYPES, INITIALS, strict=True))
    drawn = Counter()
    for _ in range(3000):
        kinds = {initial[bleed.kind] for bleed in draw_bleeds(rng, head, 1.0)}
        drawn["".join(letter for letter in INITIALS if letter in kinds)] += 1
    total = sum(TOGETHER.values())
    for together, share in TOGETHER.items():
        assert drawn[together] / 3000 == pytest.approx(share / total, abs=0.02), together


def test_bleeds_of_a_study_lie_on_one_side_more_often_than_not():
    rng = np.random.default_rng(0)
    head = draw_head(rng)
    alike = []
    for _ in range(2000):
        sides = {bleed.kind: np.sign(bleed.centre[0]) for bleed in draw_bleeds(rng, head, 1.0)}
        if {"intraparenchymal", "subdural"} <= set(sides):
            alike.append(sides["intraparenchymal"] == sides["subdural"])
    assert 0.65 < np.mean(alike) < 0.8  # 1/2 + (2/3)^2 / 2


def test_blood_of_mixed_ages_sinks():
    bleed = Bleed("subdural", (1, 0, 30), (10, 1, 40), 65.0, 3.0, 0.5, 0.0, level=-20.0, thin=28.0)
    front, grain = np.array([-60, -30, -10, 40], np.float32), np.zeros(4, np.float32)
    assert density(bleed, front, grain) == pytest.approx([65, 65, 28, 28])
    assert density(replace(bleed, level=np.inf), front, grain) == pytest.approx([65, 65, 65, 65])
    assert (density(bleed, np.full(100, -60.0), np.linspace(-20, 20, 100)) >= DENSE).all()


def test_a_quarter_of_the_subdural_bleeds_over_a_hemisphere_are_of_mixed_ages_and_few_others():
    rng = np.random.default_rng(0)
    head = draw_head(rng)
    drawn = [bleed for _ in range(3000) for bleed in draw_bleeds(rng, head, 1.0)]
    mixed = {
        kind: [np.isfinite(b.level) for b in drawn if b.kind == kind and b.style > ALONG_FALX] for kind in SUBTYPES
    }
    due = {"epidural": 0.0, "intraparenchymal": 0.08, "intraventricular": 0.0, "subarachnoid": 0.0, "subdural": 0.25}
    assert {kind: float(np.mean(shares)) for kind, shares in mixed.items()} == pytest.approx(due, abs=0.03)
    assert not any(np.isfinite(b.level) for b in drawn if b.kind == "subdural" and b.style < ALONG_FALX)


@pytest.mark.parametrize("style", [0.1, 0.9])  # along the falx, and over a hemisphere
def test_subdural_blood_lies_in_front_where_its_angle_points_there(style):
    angles = np.linspace(-1.5, 1.5, 301)
    # On the midline, or on a circle of 60 mm: at 40 mm, where any is.
    x, y = (2 * np.ones(301), 80 * np.sin(angles)) if style < ALONG_FALX else (60 * np.cos(angles), 60 * np.sin(angles))
    p = Points(x, y, np.full(301, 40.0))
    brain = Brain(p, p.x, *(np.full(301, 3.0),) * 2, *(np.zeros(301, bool),) * 2, *(np.zeros(301),) * 2)
    for angle in (0.8, -0.8):
        there = subdural(Bleed("subdural", (1.0, angle, 40.0), (9, 1.0, 40), 65.0, 2.0, style, 0.0), brain)
        assert there.any()
        assert np.sign(y[there].mean()) == np.sign(angle)


def test_points_of_a_pixel_lie_in_all_of_its_layers():
    for count in (4, 8):
        for axis in sub_samples(count).T:
            assert np.sort(axis) == pytest.approx((np.arange(count) + 0.5) / count - 0.5)


def test_calcium_of_the_falx_lies_on_it_and_a_cyst_holds_fluid():
    for seed in range(3):
        plain = replace(draw_head(stream(seed, 0)), plaque=(0, 0, 0, 0), cyst=(0, 0, 0, 0))
        x, y, z = np.random.default_rng(seed).uniform([[-60], [-80], [-30]], [[60], [80], [85]], (3, 80_000))
        p = Points(*(np.array(part, np.float32) for part in (x * (np.arange(80_000) % 2), y, z)))
        depth = paint_vault(plain, p, skull_depth(plain, p), np.zeros_like(p.x))
        p, depth = p.take(depth > 0), depth[depth > 0]
        still = np.zeros_like(depth)
        without = paint_brain(plain, p, depth, still, still).hounsfield
        for fields, value in (
            ({"plaque": (10.0, 45.0, 30.0, 300.0)}, 300),
            ({"cyst": (46.0, 26.0, -10.0, 15.0)}, None),
        ):
            brain = paint_brain(replace(plain, **fields), p, depth, still, still)
            changed = brain.hounsfield != without
            assert changed.sum() > 20
            if value:
                assert (brain.hounsfield[changed] == value).all()
                assert np.abs(p.x[changed]).max() < 1.7
                assert depth[changed].max() < 36
            else:
                assert np.median(brain.hounsfield[changed]) == pytest.approx(plain.csf + 1)
                assert not brain.cisterns[brain.hounsfield == np.float32(plain.csf + 1)].any()


@pytest.fixture(scope="module")
def scans() -> list[Scan]:
    return [draw_scan(stream(seed, 1), draw_head(stream(seed, 0))) for seed in range(600)]


def test_slices_are_06_to_10_mm_thick_and_as_many_as_in_the_challenge(scans):
    thickness = np.array([scan.thickness for scan in scans])
    assert thickness.min() < 0.8
    assert thickness.max() > 9.5
    spacing = np.array([np.diff(scan.heights).max() for scan in scans])
    for protocol in PROTOCOLS:
        (low, high), (near, far) = protocol.thickness, protocol.spacing or protocol.thickness
        of_it = (thickness >= low) & (thickness <= high) & (spacing > near - 0.01) & (spacing < far + 0.01)
        if protocol.spacing is None:
            of_it &= np.abs(spacing - thickness) < 0.01
        assert np.mean(of_it) == pytest.approx(protocol.share, abs=0.06)  # three deviations of 600 draws
    counts = np.array([len(scan.heights) for scan in scans])
    assert counts.min() >= 10
    assert counts.max() <= 75
    assert 24 <= np.median(counts) <= 36  # 34 in the challenge, whose scans reach lower


def test_most_scans_end_over_the_head_and_the_others_a_little_below_its_skin(scans):
    over = []
    for seed, scan in enumerate(scans):
        head = draw_head(stream(seed, 0))
        over.append(scan.heights[-1] - scan.scale * (crown(head) + head.scalp))
        assert -7 <= over[-1] < 6 + np.diff(scan.heights)[-1]
    assert np.mean(np.array(over) >= 0) == pytest.approx(TO_AIR, abs=0.07)  # thick last slices of others may, too


def test_last_slices_show_no_head_or_its_cap():
    areas = []  # cm2
    for seed in range(24):
        head = draw_head(stream(seed, 0))
        scan = replace(draw_scan(stream(seed, 1), head), table=(0.9, 200.0, 0.0, 0.0))  # far away
        image, _ = draw_slice(head, (), scan.at(scan.heights[-1]), scan.heights[-1], 48)
        areas.append((image > -300).sum() * (scan.field_of_view / 48) ** 2 / 100)
    assert 0.25 < np.mean(np.array(areas) < 8) < 0.75
    assert 15 < np.max(areas) < 75


def test_thin_slices_are_noisier(scans):
    thin, thick = ([scan.noise for scan in scans if low <= scan.thickness <= high] for low, high in [(0, 1.5), (7, 10)])
    assert np.mean(thin) > 1.6 * np.mean(thick)


def test_few_scans_have_projections_metal_or_motion(scans):
    assert 0.08 < np.mean([scan.projected for scan in scans]) < 0.16
    assert 0.03 < np.mean([scan.motion is not None for scan in scans]) < 0.09
    clips = [scan for scan in scans if (scan.metal[:, 2] > -50).any()]
    assert 0.02 < len(clips) / len(scans) < 0.08
    for scan in scans:
        if scan.motion is not None:
            assert 1 <= sum(scan.motion.during(height) for height in scan.heights) <= 5
            assert not scan.motion.during(scan.heights[-1])
            assert scan.at(scan.heights[0]) is scan
            assert scan.at(scan.heights[-1]) is not scan
