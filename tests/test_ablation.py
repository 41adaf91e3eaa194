"""Laws of the ablation: one change at a time, each beside what it was made from, and nothing twice."""

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from models.common.errors import InputError
from models.common.files import write_parquet
from models.common.folders import Work
from models.common.labels import ANY, LABELS
from models.common.recipe import ImageRecipe, Recipe
from models.inference.comparing import Resampled, resample
from models.preprocessing.tables import read_slices, split_fold
from models.training.loss import WeightedLogLoss
from models.training.networks import build_network
from models.training.symmetries import D4, GROUPS

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def modules():
    """The script and what it changes, imported as when its folder stands first on the path."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield import_module("ablation"), import_module("ablation_changes")
    for name in set(sys.modules) - before & {path.stem for path in FOLDER.glob("*.py")}:
        del sys.modules[name]


@pytest.fixture(scope="module")
def ablation(modules):
    return modules[0]


@pytest.fixture(scope="module")
def changes(modules):
    return modules[1]


def test_every_field_of_the_recipe_is_changed_by_a_row(changes):
    recipe = {field.name for kind in (Recipe, ImageRecipe) for field in fields(kind)}
    changed = {name for change in changes.CHANGES.values() for name in change.fields}
    assert recipe - {"warm_up", "without"} <= changed | {"noisy_labels"}
    assert {"pooling", "head_dropout", "drop_path", "augment", "pretrained", "channels", "crop_size"} <= changed


def test_a_row_differs_from_the_base_in_what_it_is_named_after_alone(changes):
    for network in changes.NETWORKS:
        base = changes.config_of(network, "base", 1, 8, 0)
        for name, change in changes.CHANGES.items():
            if network not in change.networks or name in ("sequence", "end_to_end"):
                continue
            config = changes.config_of(network, name, 1, 8, 0)
            differ = {field for field, value in config.to_json().items() if value != base.to_json()[field]}
            named = {"noisy_labels"} if name == "noisy_labels" else set(change.fields)
            assert differ - {"name"} == named, name
            build_network(config)
    assert changes.config_of("lite0", "base", 1, 8, 0).epochs == 3


def test_a_cell_comes_after_what_it_stands_beside_seed_by_seed(ablation, changes):
    options = ablation.AblationOptions()
    cells = list(ablation.plan(options))
    assert len(cells) == len(set(cells))
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    for place, cell in enumerate(cells):
        beside = changes.CHANGES[cell.change].beside
        assert cell.change == "base" or cell._replace(change=beside) in cells[:place]
    assert "noisy_labels" not in {cell.change for cell in cells}  # of two folds none is left to judge
    assert "noisy_labels" in {cell.change for cell in ablation.plan(replace(options, folds=3))}
    some = ablation.plan(replace(options, only=("crop_mismatch", "ema"), seeds=1, networks=("small",)))
    assert [cell.change for cell in some] == ["base", "crop", "crop_mismatch", "ema"]


def test_labels_are_judged_by_folds_without_the_one_that_is_trained(ablation, tmp_path):
    options = ablation.AblationOptions(folds=3, device="cpu")
    cell = ablation.Cell("small", "noisy_labels", 0)
    judges = list(ablation.judge_options(cell, ablation.Work(tmp_path), options))
    assert {(judge.config.name[-3:-2], judge.fold) for judge in judges} == {
        (str(a), b) for a in range(3) for b in range(3) if a != b
    }
    assert all(str(judge.config.without) in judge.config.name for judge in judges)
    for outer in ablation.fold_options(cell, ablation.Work(tmp_path), options):
        assert {judge.config.without for judge in judges if judge.config.name == outer.config.noisy_labels} == {
            outer.fold
        }


def test_the_interval_is_of_patients_and_seeds(ablation):
    random = np.random.default_rng(0)
    patients, target = np.repeat(np.arange(60), 3), (random.random((180, 6)) < 0.3).astype(float)
    good, bad = np.where(target == 1, 0.7, 0.3), np.where(target == 1, 0.6, 0.4)
    of = {name: resample(target, said, patients) for name, said in (("good", good), ("bad", bad))}
    always = ablation.paired([of["bad"]] * 5, [of["good"]] * 5)
    assert always["worse by"] == pytest.approx(np.log(0.7 / 0.6), abs=1e-4)
    assert always["low"] > 0
    in_one = ablation.paired([of["bad"], *[of["good"]] * 4], [of["good"]] * 5)
    assert in_one["low"] < 0 < in_one["worse by"]
    assert ablation.describe(in_one | {}).endswith("no effect")
    assert ablation.describe(always).endswith("worse")
    assert ablation.describe({name: -value for name, value in always.items()} | {"low": -1, "high": -0.1}).endswith(
        "better"
    )


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_what_seeds_alone_differ_by_is_seldom_called_an_effect(ablation, seeds):
    """Of 300 comparisons without any effect, whose seeds differ five times as much as patients let the mean differ."""
    random, wrong = np.random.default_rng(seeds), 0
    for _ in range(300):
        mean, draws = random.normal(), random.normal(size=(1000, 1))  # of the patients, in all seeds alike
        values = mean + 5 * random.normal(size=seeds)
        runs = [Resampled(np.array([value]), value + draws, 110, 0) for value in values]
        none = [Resampled(np.zeros(1), np.zeros((1000, 1)), 110, 0)] * seeds
        told = ablation.paired(runs, none)
        wrong += told["low"] > 0 or told["high"] < 0
    assert wrong / 300 < 0.09


def link_cache(folder, prepared):
    """Stands for a phantom that is drawn there."""
    folder.mkdir(exist_ok=True)
    if not (folder / "cache").exists():
        (folder / "cache").symlink_to(prepared.cache)


@pytest.fixture
def scored(ablation, few, tmp_path, monkeypatch):
    """A working folder with a plan of three cells, whose trainings are made up."""
    labels = read_slices(few, "train").dropna(subset=list(LABELS))
    made = []

    def make(cell, work, options, pool):
        made.append(cell.change)
        said = np.clip(labels[list(LABELS)].to_numpy(float), 0.1, 0.8 if cell.change == "ema" else 0.9)
        table = pd.DataFrame(said, columns=list(LABELS)).assign(image_id=labels["image_id"].to_numpy())
        for fold in range(2):
            folder = work.run(cell.name, fold)
            folder.mkdir(parents=True)
            write_parquet(folder / "valid.parquet", table.iloc[fold::2])
        return 2.5

    monkeypatch.setattr(ablation, "make_cell", make)
    monkeypatch.setattr(ablation, "prepare_phantom", lambda folder, _: link_cache(folder, few))
    options = ablation.AblationOptions(
        work=tmp_path, output=tmp_path / "ablation.json", only=("ema", "cosine"), networks=("small",), seeds=1
    )
    return options, made


def test_what_is_finished_is_not_made_again_and_the_table_is_of_all_that_is_there(ablation, scored, capsys):
    options, made = scored
    ablation.main(replace(options, hours=-1.0))
    assert made == []
    assert "3 cells are left; the same command goes on with them" in capsys.readouterr().out
    ablation.main(replace(options, only=("ema",)))
    ablation.main(options)
    assert made == ["base", "ema", "cosine"]
    written = json.loads(options.output.read_text())
    assert set(written["rows"]) == {"small base", "small ema", "small cosine"}
    assert written["rows"]["small cosine"]["worse by"] == 0
    assert written["rows"]["small ema"]["low"] > 0
    base = written["rows"]["small base"]
    assert {name: base[name] for name in base.keys() - {"what", "mean"}} == {"beside": "base", "seeds": 1, "s CPU": 2.5}
    assert written["rows"]["small cosine"]["what"] == "cosine with warm-up, not one-cycle"
    assert set(written["not_switched"]) == {"wrapped repair"}
    assert "small ema" in capsys.readouterr().out


def test_a_seed_that_is_kept_whole_is_not_made_again_in_another_folder_and_others_are_added(ablation, scored):
    options, made = scored
    ablation.main(options)
    one = json.loads(options.output.read_text())
    made.clear()
    elsewhere = replace(options, work=options.work / "elsewhere")
    ablation.main(elsewhere)
    assert made == []
    assert not elsewhere.work.exists()
    assert json.loads(options.output.read_text()) == one
    ablation.main(replace(elsewhere, seeds=2))
    assert made == ["base", "ema", "cosine"]
    two = json.loads(options.output.read_text())
    assert {row["seeds"] for row in two["rows"].values()} == {2}
    assert two["rows"]["small ema"]["mean"] == one["rows"]["small ema"]["mean"]
    ablation.main(replace(elsewhere, seeds=1))
    assert {row["seeds"] for row in json.loads(options.output.read_text())["rows"].values()} == {1}


def test_a_seed_that_is_kept_in_part_begins_anew_in_another_folder(ablation, scored):
    """Or a change would stand beside the base of another machine, of which each rounds otherwise."""
    options, made = scored
    ablation.main(replace(options, only=("ema",)))
    made.clear()
    ablation.main(replace(options, only=("cosine",), work=options.work / "elsewhere"))
    assert made == ["base", "cosine"]
    kept = sys.modules["ablation_kept"].read_kept(ablation.file_of(options), ablation.name_of_plan(options))
    assert not kept.duplicated(["network", "change", "seed", "whom", "patient"]).any()
    assert set(kept["change"]) == {"base", "cosine"}


def test_what_is_kept_of_another_drawing_is_not_taken_for_this_ones_and_stays(ablation, scored, monkeypatch):
    options, made = scored
    ablation.main(options)
    made.clear()
    monkeypatch.setattr(ablation, "VERSION", ablation.VERSION + 1)
    ablation.main(replace(options, work=options.work / "elsewhere"))
    assert made == ["base", "ema", "cosine"]
    kept = pd.read_parquet(ablation.file_of(options))
    assert kept.groupby("plan").size().nunique() == 1
    assert kept["plan"].nunique() == 2


def test_what_is_kept_of_other_patients_is_refused_and_stays(ablation, scored):
    options, _ = scored
    ablation.main(replace(options, only=("ema",)))
    file = ablation.file_of(options)
    kept = pd.read_parquet(file)
    write_parquet(file, kept.assign(seed=1, slices=kept["slices"] + (kept["patient"] == 1)))
    before = file.read_bytes()
    with pytest.raises(InputError, match=r"is of other drawings .* move it away"):
        ablation.main(options)
    assert file.read_bytes() == before


def test_losses_of_patients_are_enough_for_the_loss_of_all_and_of_drawn_ones(ablation, few):
    kept = sys.modules["ablation_kept"]
    labels = read_slices(few, "train").dropna(subset=list(LABELS)).set_index("image_id")
    said = pd.DataFrame(np.random.default_rng(0).random((len(labels), 6)), labels.index, list(LABELS))
    whole = resample(labels[list(LABELS)].to_numpy(), said.to_numpy(), labels["patient_id"].to_numpy())
    ours = kept.resampled(kept.patient_losses(said.sample(frac=1, random_state=0), few))
    np.testing.assert_allclose(ours.draws[:, 0], whole.draws[:, 0])
    np.testing.assert_allclose(ours.value[0], whole.value[0])
    assert (ours.patients, ours.seed) == (whole.patients, whole.seed)


def test_a_table_of_another_plan_stands_among_the_others(ablation, scored):
    options, _ = scored
    usual = ablation.AblationOptions()
    ablation.main(options)
    main = json.loads(options.output.read_text())
    ablation.main(replace(options, only=("ema",), studies=usual.studies + 1, epochs=8))
    both = json.loads(options.output.read_text())
    (other,) = both.pop("others").items()
    assert both == main
    assert other[0] == "111 studies, 8 epochs"
    assert other[1]["rows"] == {name: main["rows"][name] for name in ("small base", "small ema")}
    ablation.main(options)
    assert json.loads(options.output.read_text()) == {**main, "others": dict([other])}


def test_changes_are_compared_on_people_by_the_mean_of_their_folds(ablation, scored, few, monkeypatch):
    """`ema` is better on drawings, and on people in one fold alone; the mean of both is worse than the base's."""
    options, _ = scored
    labels = read_slices(few, "train").dropna(subset=list(LABELS))
    target = labels[list(LABELS)].to_numpy(float)
    asked = {}

    def predict(runs, work, data, folds, device, pool):
        asked.update(runs=list(runs), data=data)
        people = Work(work.root / "people")
        people.root.mkdir()
        people.cache.symlink_to(work.cache.resolve())
        for run in runs:
            for fold, right in enumerate((0.9, 0.3) if "ema" in run else (0.7, 0.7)):
                said = pd.DataFrame(np.where(target == 1, right, 1 - right), columns=list(LABELS))
                file = people.prediction(run, fold, "train")
                file.parent.mkdir(parents=True)
                write_parquet(file, said.assign(image_id=labels["image_id"].to_numpy()).iloc[:: 1 - 2 * fold])
        return people

    monkeypatch.setattr(ablation, "predict_people", predict)
    ablation.main(replace(options, people=Path("people")))
    assert asked == {"runs": ["small_base_0", "small_ema_0", "small_cosine_0"], "data": Path("people")}
    written = json.loads(options.output.read_text())
    ema, cosine = written["rows"]["small ema"], written["rows"]["small cosine"]
    assert ema["of people worse by"] == pytest.approx(np.log(0.7 / 0.6), abs=1e-4)
    assert ema["of people low"] > 0 < ema["low"]
    assert cosine["of people worse by"] == 0
    assert "of people worse by" not in written["rows"]["small base"]
    assert written["agreement"] == {
        "changes": 2,
        "changes, same sign on people": 1,
        "proven on drawings": 1,
        "proven on drawings, same sign on people": 1,
    }


def test_signs_agree_where_both_are_worse_or_both_better(ablation):
    def row(value, low, high, of_people):
        return {"worse by": value, "low": low, "high": high, "of people worse by": of_people}

    rows = {
        "better": row(-0.2, -0.3, -0.1, -0.01),
        "worse": row(0.2, 0.1, 0.3, -0.2),
        "perhaps": row(0.2, -0.1, 0.3, 0.3),
        "the same": row(0.0, -0.1, 0.1, 0.3),
        "predicted anew": {"worse by": 1, "low": 1, "high": 1},
    }
    assert list(ablation.agreement(rows).values()) == [4, 2, 2, 1]
    assert ablation.agreement({"predicted anew": rows["predicted anew"]}) == {}


def test_people_are_predicted_by_the_weights_of_each_fold_in_a_folder_of_their_own(ablation, tmp_path, monkeypatch):
    people = sys.modules["ablation_people"]
    prepared = []
    monkeypatch.setattr(people, "prepare", prepared.append)
    asked = []
    monkeypatch.setattr(people, "infer", asked.append)
    found = people.predict_people(["a", "b"], Work(tmp_path), Path("data"), 2, "cpu", ThreadPoolExecutor(1))
    assert found.root == tmp_path / "people"
    assert [(options.data, options.work, options.image_size) for options in prepared] == [
        (Path("data"), found.root, (64,))
    ]
    assert [(one.name, one.fold) for one in asked] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert {one.split for one in asked} == {"train"}
    assert asked[1].folder == tmp_path / "runs" / "a" / "fold1"
    assert asked[1].output == found.root / "runs" / "a" / "fold1" / "train.parquet"


def test_the_originals_losses_are_what_they_are_called(changes):
    logits, target = torch.randn(7, 6), (torch.rand(7, 6) < 0.5).float()
    plain = binary_cross_entropy_with_logits(logits, target)
    torch.testing.assert_close(changes.PlainLoss()(logits, target), plain)
    weight = torch.ones(6)
    weight[ANY] = 2
    expected = binary_cross_entropy_with_logits(logits, target, pos_weight=weight)
    torch.testing.assert_close(changes.PositiveWeightLoss()(logits, target), expected)


def test_the_loss_is_changed_where_it_is_trained_alone(changes):
    import models.training.joint as module

    for name, kind in (("pos_weight", changes.PositiveWeightLoss), ("plain_loss", changes.PlainLoss)):
        with changes.PATCHES[name]():
            assert module.WeightedLogLoss is kind
        assert module.WeightedLogLoss is WeightedLogLoss


def test_folds_by_slice_validate_each_slice_once_and_patients_stand_on_both_sides(changes, prepared):
    whole = pd.concat(split_fold(prepared, 0, skip_low_information=False))
    folds = range(whole["fold"].nunique())
    parts = [changes.split_by_slice(prepared, fold, False) for fold in folds]
    validated = pd.concat([valid for _, valid in parts])["image_id"]
    assert sorted(validated) == sorted(whole["image_id"])
    train, valid = parts[0]
    assert not set(train["image_id"]) & set(valid["image_id"])
    assert set(valid["patient_id"]) <= set(train["patient_id"])


def test_six_of_the_symmetries_are_six_of_them(changes):
    assert len(changes.SIX) == len(set(changes.SIX)) == 6
    assert set(changes.SIX) < set(D4)


def test_a_row_has_as_many_views_as_what_it_stands_beside_unless_it_is_named_after_them(ablation, changes, monkeypatch):
    options = ablation.fold_options(ablation.Cell("small", "base", 0), Work(Path()), ablation.AblationOptions())
    counts = {}
    for name in ("require_run", "kind_of", "load_trained", "split_fold", "make_loader", "replace", "prediction_table"):
        fake = MagicMock(return_value=("train", {"image_id": []})) if name == "split_fold" else MagicMock()
        monkeypatch.setattr(changes, name, fake)
    monkeypatch.setattr(changes, "TrainConfig", object)
    for name, change in changes.CHANGES.items():
        if change.again and change.again != "smoothed":
            monkeypatch.setattr(changes, "predict", lambda *args, name=name: counts.update({name: args[-1].keywords}))
            changes.predict_again(options[0], change.again)
    views = {name: len(of["group"]) for name, of in counts.items()}
    trained = {len(GROUPS[one.tta]) for one in options}
    assert trained == {views.pop("crop_mismatch")} == {2}
    assert views == {"symmetries": 8, "six_symmetries": 6, "one_view": 1, "augmented_validation": 1}


def test_the_page_tells_every_row_that_was_written():
    written = json.loads((FOLDER / "ablation.json").read_text())
    page = (FOLDER.parent / "docs" / "results.md").read_text()
    section = page.partition("## What each part of the recipe is worth\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if re.match(r"\| (small|lite0) \|", line)]
    due = []
    for name, row in written["rows"].items():
        beside = "" if row["beside"] == "base" else f"; beside `{row['beside']}`"
        worse = told(row, "") if "low" in row else f"{row['mean']:.4f}"
        on_people = told(row, "of people ") if "of people low" in row else "\N{EN DASH}"
        due.append([name.split()[0], row["what"] + beside, worse, on_people])
    assert rows == due
    assert f"commit `{written['commit'][:7]}`" in section
    assert f"a seed took {sum(row['s CPU'] for row in written['rows'].values()) / 60:.0f} CPU minutes" in section
    agreed = written["agreement"]
    signs = f"of {agreed['changes']} changes the sign is the same on people in {agreed['changes, same sign on people']}"
    assert signs in " ".join(section.split())
    proven = agreed["proven on drawings"], agreed["proven on drawings, same sign on people"]
    assert f"of {proven[0]} that are proven on drawings in {proven[1]}" in " ".join(section.split())


def told(row: dict[str, float], of: str) -> str:
    """A difference with its interval, as the page has it."""
    return f"{row[f'{of}worse by']:+.4f} [{row[f'{of}low']:+.4f}, {row[f'{of}high']:+.4f}]"
