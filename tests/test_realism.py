"""Laws of benchmarks/realism.py: what is alike is not told apart, what differs is, and numbers mean what they say."""

import json
import re
import sys
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor
from once import made_once
from scipy.linalg import sqrtm

from models.common.config import TrainConfig
from models.common.errors import InputError
from models.phantom.dicom import write_phantom
from models.preprocessing.windows import BRAIN

FOLDER = Path(__file__).parent.parent / "benchmarks"
NAMES = ("realism", "realism_slices", "realism_features", "realism_measures", "realism_verdicts")
SIZE, STUDIES = 96, 8


@pytest.fixture
def bench(monkeypatch):
    """The modules of the benchmark, imported as they are when their folder stands first on the path."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(FOLDER)
    get_reusable_executor().shutdown()  # processes of other tests know another path
    yield SimpleNamespace(**{name.removeprefix("realism_"): import_module(name) for name in NAMES})
    for name in set(sys.modules) - before & {path.stem for path in FOLDER.glob("*.py")}:
        del sys.modules[name]


@pytest.fixture
def drawn(bench, tmp_path_factory):
    """Studies of two seeds, drawn once; the second stands for real ones."""

    def draw(folder: Path) -> None:
        folder.mkdir()
        for seed in (0, 1):
            made = bench.slices.join([bench.slices.draw_phantom(1000 * (seed + 1) + n, SIZE) for n in range(STUDIES)])
            np.savez(folder / f"{seed}.npz", **vars(made))

    folder = made_once(tmp_path_factory, "realism", draw)
    return [bench.slices.Slices(**np.load(folder / f"{seed}.npz")) for seed in (0, 1)]


@pytest.fixture
def features(bench):
    """Random features of slices, whole or in patches, and the study of each."""

    def judged(slices, kind: str):
        images, studies = (
            bench.features.whole_images(slices) if kind == "whole" else bench.features.patch_images(slices, 0)
        )
        return bench.features.features_of(bench.features.Look(images, BRAIN, "random")), studies

    return judged


@pytest.mark.parametrize("kind", ["whole", "patches"])
def test_what_is_alike_is_not_told_apart(bench, drawn, features, kind):
    """In the mean of many divisions of the same studies: of one of them the ratio may be 2."""
    auc, ratio = bench.features.chance(features(bench.slices.join(drawn), kind), seed=0)
    assert 0.4 < auc < 0.6
    assert 0.7 < ratio < 1.4


@pytest.mark.parametrize("kind", ["whole", "patches"])
def test_a_planted_difference_is_told_apart(bench, drawn, features, kind):
    phantom, real = drawn
    alike, _ = bench.slices.match(phantom, real, seed=0)
    of_real = features(real, kind)

    def brighter_by(hu: int):
        return features(
            replace(alike, hounsfield=alike.hounsfield + hu * (alike.hounsfield > 0).astype(np.int16)), kind
        )

    assert np.mean(bench.features.told_apart(brighter_by(30), of_real, seed=0)) > 0.9
    across, within = bench.features.distances(brighter_by(60), of_real, seed=0)  # studies differ from each other, too
    assert across / within > 3


def test_a_classifier_is_never_tested_on_a_study_that_it_has_seen(bench, drawn):
    """Each study has features of its own, which tell nothing of the kind: who knows the study is always right."""
    random = np.random.default_rng(0)
    sets = []
    for kind in "ab":
        studies = np.repeat([f"{kind}{number}" for number in range(12)], 20)
        own = {name: random.normal(0, 1, 40) for name in np.unique(studies)}
        sets.append((np.stack([own[name] for name in studies]) + random.normal(0, 0.1, (len(studies), 40)), studies))
    assert 0.3 < np.mean(bench.features.told_apart(*sets, seed=0)) < 0.7
    first, second = bench.features.halves(sets[0][1], random)
    assert (first ^ second).all()
    assert not set(sets[0][1][first]) & set(sets[0][1][second])


def test_the_frechet_distance_is_that_of_its_definition(bench):
    random = np.random.default_rng(0)
    one = random.normal(0, 1, (500, 5)) @ random.normal(0, 1, (5, 5))
    other = random.normal(1, 2, (400, 5))
    means = np.square(one.mean(axis=0) - other.mean(axis=0)).sum()
    spreads = np.cov(one.T), np.cov(other.T)
    expected = means + np.trace(spreads[0] + spreads[1] - 2 * sqrtm(spreads[0] @ spreads[1]).real)
    assert bench.features.frechet(one, other) == pytest.approx(expected)
    assert bench.features.frechet(one, one) == pytest.approx(0, abs=1e-9)


def test_slices_are_matched_by_depth_and_none_is_taken_twice(bench, drawn):
    phantom, real = drawn
    few = real.take(np.arange(0, len(real), 3))
    numbered = replace(phantom, spacing=np.arange(len(phantom), dtype=float))
    alike, how = bench.slices.match(numbered, few, seed=0)
    assert len(alike) == len(few) == len(set(alike.spacing))
    assert np.sort(alike.depth) == pytest.approx(np.sort(few.depth), abs=6)
    assert how["median mm"] < 5
    assert len(np.unique(alike.study)) == STUDIES
    again, _ = bench.slices.match(numbered, few, seed=1)
    assert (again.spacing != alike.spacing).any()


def disc(noise: float = 0.0, width: float = 0.0) -> np.ndarray:
    """A round head (256, 256) of 1 mm: brain of 35 HU to 60 mm, bone of 1000 to 68, fat to 74, a table behind it.

    With noise, HU, and with an edge of the brain that rises over a width, mm.
    """
    y, x = np.mgrid[:256, :256] - 127.5
    radius = np.hypot(x, y)
    hu = np.full((256, 256), -1000.0)
    hu[radius < 74] = -80
    hu[radius < 68] = 35 + 965 * np.clip((radius[radius < 68] - 60) / max(width, 1e-3) + 0.5, 0, 1)
    hu[(y > 90) & (y < 93)] = 200
    inside = radius < 56
    hu[inside] += np.random.default_rng(0).normal(0, noise or 1e-9, inside.sum())
    return np.round(hu).astype(np.int16)


def test_head_and_inside_of_the_skull_are_found_without_the_table(bench):
    head, cavity = bench.slices.head_mask(disc(), 1.0), bench.slices.cavity_mask(disc(), 1.0)
    assert head.sum() == pytest.approx(np.pi * 74**2, rel=0.02)
    assert cavity.sum() == pytest.approx(np.pi * 60**2, rel=0.02)
    opened = disc()
    opened[:128, 118:138] = 35  # a gap: the skull is open
    assert not bench.slices.cavity_mask(opened, 1.0).any()


def test_depth_is_measured_from_the_uppermost_slice_of_the_head(bench):
    images = np.stack([disc(), disc(), np.full((256, 256), -1000, np.int16)])
    study = bench.slices.of_study("one", images, np.array([10.0, 15.0, 20.0]), 1.0)
    assert study.depth.tolist() == [5, 0, -5]


def of_discs(bench, **looks):
    images = np.stack([disc(**looks)] * 3)
    return bench.measures.measure_study(
        bench.slices.Slices(images, np.array(["one"] * 3), np.array([40.0, 50.0, 60.0]), np.ones(3))
    )


def test_measures_are_those_that_were_drawn(bench):
    plain = of_discs(bench, noise=5.0)
    assert plain["brain, HU, 50 %"] == pytest.approx(35, abs=1)
    assert plain["noise, HU"] == pytest.approx(5, rel=0.15)
    assert plain["bone, HU, 50 %"] == 1000
    assert plain["scalp, HU of fat"] == -80
    assert plain["air, HU"] == -1000
    assert plain["inside of the skull, cm2 45 mm down"] == pytest.approx(np.pi * 36, rel=0.02)
    assert plain["head, cm2 50 mm down"] == pytest.approx(np.pi * 7.4**2, rel=0.02)
    assert plain["head, length to width"] == pytest.approx(1, abs=0.02)
    shares = [value for name, value in plain.items() if "Nyquist" in name]
    areas = [
        np.pi * (high**2 - low**2) for low, high in zip((0.125, 0.25, 0.5, 0.75), (0.25, 0.5, 0.75, 1), strict=True)
    ]
    assert shares == pytest.approx(np.array(areas) / sum(areas), abs=0.04)  # of white noise


def test_an_edge_that_is_wider_is_measured_wider(bench):
    sharp, soft = (of_discs(bench, width=width)["edge of the skull, mm"] for width in (2.0, 5.0))
    assert sharp == pytest.approx(0.8 * 2, abs=0.8)
    assert soft == pytest.approx(0.8 * 5, abs=0.8)


def test_studies_are_counted_that_lie_where_real_ones_do(bench):
    real = [{"a": float(value), "b": np.nan} for value in range(11)]
    rows = bench.measures.compare(real, [{"a": 0.5}, {"a": 5.0}, {"a": 9.5}, {"a": np.nan}, {}])
    assert rows == {"a": {"real": [1, 5, 9], "phantom": [1.4, 5, 8.6], "inside": 0.333}}


@pytest.fixture
def drawn_as_real(tmp_path_factory):
    """A folder of a few studies in Kaggle's layout that stands for real ones."""
    draw = partial(write_phantom, studies=4, test_studies=2, image_size=SIZE, seed=5, jobs=1)
    return made_once(tmp_path_factory, "drawn_as_real", draw)


def test_all_is_judged_and_what_was_judged_before_is_kept(bench, drawn_as_real, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench.realism, "FULL", SIZE)
    monkeypatch.setattr(bench.features, "HALVINGS", 2)
    monkeypatch.setattr(bench.features, "MOSTLY", 0.5)  # a patch is as large as most heads in so few pixels
    monkeypatch.setattr(bench.realism, "told_apart", partial(bench.features.told_apart, halvings=2))
    output = tmp_path / "realism.json"
    output.write_text(json.dumps({"before": {"AUC": 1}}))
    options = bench.realism.RealismOptions(drawn_as_real, 2, 2, SIZE, network="random", output=output)
    bench.realism.main(options)
    written, printed = json.loads(output.read_text()), capsys.readouterr().out
    assert list(written) == ["before", "now"]
    assert written["before"] == {"AUC": 1}
    now = written["now"]
    assert {"command", "commit", "machine", "settings", "slices", "measures"} <= set(now)
    assert now["settings"]["seeds"] == 2
    for kind in ("patches", "whole slices"):
        assert list(now[kind]) == ["40/80", "80/200", "40/380", "600/2800", "mean"]
        assert all(np.isfinite(list(row.values())).all() for row in now[kind].values())
    assert str(tmp_path) not in output.read_text()
    assert "goal: AUC of patches <= 0.80" in printed


def test_the_numbers_of_the_first_phantom_are_kept(bench):
    before = json.loads((FOLDER / "realism.json").read_text())["before"]
    assert re.fullmatch(r"[0-9a-f]{40}", before["commit"])
    assert before["settings"]["seeds"] == 3
    assert before["settings"]["network"] == "lite0"
    assert before["patches"]["mean"]["AUC"] > bench.realism.GOALS["patches"]


def test_without_real_slices_nothing_is_judged(bench):
    for name, options in (("realism", "RealismOptions"), ("verdicts", "VerdictOptions")):
        module = getattr(bench, name)
        with pytest.raises(InputError, match="needs real slices; name their folder with --data or RSNA_DATA"):
            module.main(getattr(module, options)(data=None))


def test_settings_of_the_verdicts_are_networks_that_can_be_trained(bench):
    verdicts = bench.verdicts
    names = verdicts.settings_of(verdicts.VerdictOptions(data=None))
    assert len(names) >= 8
    configs = [verdicts.config_of(name, seed=3) for name in names]
    assert all(isinstance(config, TrainConfig) and config.seed == 3 for config in configs)
    assert len({replace(config, name="x") for config in configs}) == len(names)
    with pytest.raises(InputError, match="no setting 'small_65'"):
        verdicts.settings_of(verdicts.VerdictOptions(data=None, only=("small_65",)))


def test_verdicts_agree_where_ranks_do(bench):
    rows = {
        str(number): {"phantom loss": number, "real loss": number**2, "phantom AUC": number, "real AUC": -number}
        for number in range(5)
    }
    assert bench.verdicts.agreement(rows) == {"loss": 1, "AUC": -1}
    assert bench.verdicts.agreement({"0": rows["0"]}) == {"loss": None, "AUC": None}


def test_networks_learn_on_drawings_and_are_scored_on_both(bench, drawn_as_real, tmp_path, monkeypatch):
    monkeypatch.setattr(bench.verdicts, "DRAWN", 64)
    output = tmp_path / "realism.json"
    ask = partial(
        bench.verdicts.VerdictOptions, drawn_as_real, quick=True, output=output, work=tmp_path / "work", jobs=1
    )
    bench.verdicts.main(ask(only=("small_64_short", "small_64_one_window", "small_64_unchanged")))
    written = json.loads(output.read_text())["verdicts"]
    assert len(written["rows"]) == 3
    assert set(written["agreement"]) == {"loss", "AUC"}
    for row in written["rows"].values():
        assert 0 < row["phantom loss"] < 3
        assert 0 < row["real loss"] < 3
        assert row["phantom loss"] != row["real loss"]
    bench.verdicts.main(ask(only=("small_64_short",)))  # goes on where it was: nothing is trained anew
    again = json.loads(output.read_text())["verdicts"]["rows"]["small_64_short"]
    assert again["seconds"] < written["rows"]["small_64_short"]["seconds"]
    assert again["real loss"] == written["rows"]["small_64_short"]["real loss"]
