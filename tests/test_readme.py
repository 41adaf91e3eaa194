"""What the README says is so."""

import importlib
import re
from pathlib import Path

import pytest

from models.common.config import TrainConfig

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text()
PRESETS = re.findall(r"^\| `models/(train_\w+)\.py` \|(.*)\|$", README, flags=re.MULTILINE)


def test_every_file_that_it_names_is_there():
    named = re.findall(r"(?:models|docs|benchmarks|tests)/[\w./]+\.(?:py|png|ipynb)|[\w-]+\.ipynb", README)
    assert len(named) > 10
    assert [name for name in named if not (REPOSITORY / name).is_file()] == []


def test_every_training_script_that_looks_at_images_is_in_the_table_of_presets():
    scripts = {path.stem for path in (REPOSITORY / "models").glob("train_*.py")}
    of_images = {name for name in scripts if isinstance(configuration(name), TrainConfig)}
    assert scripts - of_images == {"train_sequence"}
    assert {name for name, _ in PRESETS} == of_images


def configuration(script):
    return importlib.import_module(f"models.{script}").CONFIG


@pytest.mark.parametrize(("script", "row"), PRESETS)
def test_table_of_presets_is_what_the_scripts_declare(script, row):
    config = configuration(script)
    expected = [
        config.network,
        config.image_size,
        config.crop_size or "no",
        " ".join(str(channel) for channel in config.channels),
        config.optimizer,
        f"{config.max_lr:g}",
        config.epochs,
        config.batch_size,
    ]
    assert [cell.strip() for cell in row.split("|")] == [str(value) for value in expected]


def test_low_information_slices_are_left_out_where_it_says_so():
    keep = {script for script, _ in PRESETS if not configuration(script).skip_low_information}
    assert keep == {"train_small", "train_b2", "train_b2_triplet", "train_b2_context", "train_b0_recurrent"}


def test_every_make_target_that_it_names_exists():
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = re.findall(r"(?:^|`)make (\w+)", README, flags=re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
