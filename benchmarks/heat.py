"""Where a network looks, on a phantom whose bleeds are known: the share of its heat that lies inside of them.

    python benchmarks/heat.py --work scratch --run small     # of a run on that phantom; prints two tables
    python benchmarks/heat.py --work scratch --run default   # of the network in the repository, who has seen none

Beside it stand a map that knows only where the middle of a head is, and the same network with random weights. Then: how
much of the bleeds is found by their size in a slice, in mm2. Out-of-fold, intervals by drawing patients.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from models.common.cli import command
from models.common.config import TrainConfig
from models.common.errors import InputError
from models.common.folders import DataFolder, Work, WorkFolder, default_data, default_work
from models.common.labels import ANY, LABELS
from models.inference.default import default_runs
from models.inference.heat import LEAST, heat_maps
from models.inference.runs import finished_folds, read_fold
from models.phantom.dicom import VERSION, identify
from models.phantom.study import draw_patient, draw_slice
from models.preprocessing.origin import DRAWN
from models.preprocessing.tables import read_slices
from models.reporting.resampling import mean_interval
from models.training.kinds import kind_of
from models.training.run_record import require_run
from models.training.weights import load_trained

DEFAULT = "default"
DENSITIES = 60.0, 70.0  # HU of the same blood in two drawings: where they differ, there is blood
IS_BLOOD = 0.3  # of a pixel: from this share on it is blood
SIZES = {"below 100 mm2": 100, "100 to 300 mm2": 300, "300 to 1,000 mm2": 1000, "1,000 mm2 and more": np.inf}
SPECIFICITY = 0.9  # over all slices, at which those of a bleed are found
RANDOM = 5  # networks with random weights a fold
MIDDLE = 0.18  # width of the map that knows the middle, as a share of the image


@dataclass(frozen=True)
class HeatOptions:
    """The command line of this benchmark."""

    run: str = "small"
    """a run of single slices on a phantom; "default": the network of slices that answers where nobody names one"""
    least: int = LEAST
    """places a side that features must have"""
    data: DataFolder = field(default_factory=default_data)
    work: WorkFolder = field(default_factory=default_work)
    jobs: int = -1
    """processes that draw"""


def main(options: HeatOptions) -> None:
    """Measure every fold of the run, and print."""
    work = Work(options.work)
    parameters = read_parameters(options.data)
    slices = read_slices(work, "train").set_index("image_id")
    if options.run == DEFAULT:
        folders, slices["fold"] = {0: default_runs()[0]}, 0
    else:
        folds = finished_folds(work, options.run)
        folders = {fold: work.run(options.run, fold) for fold in folds}
        said = pd.concat([read_fold(work, options.run, fold, "valid").assign(fold=fold) for fold in folds])
        slices = slices.join(said[["fold"]], how="inner")
        slices["said"] = said["any"]
    (size,) = {config_of(folder).image_size for folder in folders.values()}
    parameters["image_size"] = size  # of the maps; the same blood, whatever the size of the slices that were drawn
    studies = [number for number in range(parameters["studies"]) if is_seen(parameters["seed"], number, slices)]
    if not studies:
        raise InputError(f"no bleed in {options.data} was shown to this run; name its own phantom with --data")
    drawn = Parallel(options.jobs)(delayed(draw_blood)(parameters, number) for number in studies)
    blood = {image: mask for study in drawn for image, mask in study.items()}
    spacing = slices["pixel_spacing_0"] * slices["rows"] / parameters["image_size"]
    slices["area"] = pd.Series({image: mask.sum() for image, mask in blood.items()}) * spacing**2
    bled = slices[(slices["any"] == 1) & slices.index.isin(blood)]
    found = [measure(work, folders[fold], bled[bled["fold"] == fold], blood, options.least) for fold in folders]
    show_heat(pd.concat(found))
    if options.run != DEFAULT:
        show_sizes(slices, bled)


def read_parameters(data: Path) -> dict:
    """With what a phantom was drawn. Raises InputError for what is none, or was drawn by another version."""
    if not (data / DRAWN).is_file():
        raise InputError(f"{data} is no phantom, of which alone it is known where blood lies; name one with --data")
    parameters = json.loads((data / DRAWN).read_text())
    if parameters["version"] != VERSION:
        raise InputError(
            f"{data} is of version {parameters['version']} of the drawing; drawn anew, by version {VERSION}, its blood "
            "would lie elsewhere: draw it again in another folder, and train the run there"
        )
    return parameters


def config_of(folder: Path) -> TrainConfig:
    """What a network of slices was trained as."""
    config = require_run(folder, "").config
    assert isinstance(config, TrainConfig)
    return config


def is_seen(seed: int, number: int, slices: pd.DataFrame) -> bool:
    """Whether a study of the phantom has slices with blood that the run was validated on."""
    name = identify(seed, "train", number)
    return bool((slices.loc[slices["series_id"] == name.series_id, "any"] == 1).any())


def draw_blood(parameters: dict, number: int) -> dict[str, np.ndarray]:
    """The share of blood in each pixel of the slices of a study, (size, size), by image."""
    name, size = identify(parameters["seed"], "train", number), parameters["image_size"]
    head, scan, bleeds = draw_patient(name.seed, name.patient_seed)
    masks = {}
    for index, height in enumerate(scan.heights):
        of_density = [tuple(replace(bleed, hounsfield=hu, thin=hu) for bleed in bleeds) for hu in DENSITIES]
        low, high = (draw_slice(head, some, scan.at(height), height, size)[0] for some in of_density)
        masks[name.image_id(index)] = np.clip((high - low) / (DENSITIES[1] - DENSITIES[0]), 0, 1)
    return masks


def measure(work: Work, folder: Path, bled: pd.DataFrame, blood: dict[str, np.ndarray], least: int) -> pd.DataFrame:
    """A row a slice with blood: the share of each kind of heat inside the bleed, and whether its maximum lies there."""
    record = require_run(folder, "")
    kind = kind_of(record.config, folder)
    dataset = kind.dataset(bled.reset_index(), work, "none")
    trained, untrained = kind.network(dataset), [kind.network(dataset) for _ in range(RANDOM)]
    load_trained(folder, record, trained)
    rows = []
    for row, image_id in enumerate(bled.index):
        inside = blood[image_id] >= IS_BLOOD
        image = dataset[0, row][0][None]
        if not inside.any():
            continue
        heat = {
            "the trained network": [heat_maps(trained, image, ANY, least)[0].numpy()],
            "the middle of the head": [middle(len(inside))],
            "random weights": [heat_maps(network, image, ANY, least)[0].numpy() for network in untrained],
        }
        rows.append({"patient_id": bled["patient_id"].iloc[row], "size": inside.mean()} | shares(heat, inside))
    return pd.DataFrame(rows)


def shares(heat: dict[str, list[np.ndarray]], inside: np.ndarray) -> dict[str, float]:
    """Of each kind of maps (size, size), their mean: how much lies inside, and whether the maximum does.

    A map without heat has none inside.
    """
    values = {}
    for name, maps in heat.items():
        totals = [max(float(map_.sum()), 1e-9) for map_ in maps]
        within = [float(map_[inside].sum()) / total for map_, total in zip(maps, totals, strict=True)]
        values[f"{name}: inside"] = float(np.mean(within))
        values[f"{name}: hit"] = float(np.mean([inside.flat[map_.argmax()] and map_.any() for map_ in maps]))
    return values


def middle(size: int) -> np.ndarray:
    """A hill in the middle of an image, (size, size)."""
    place = (np.arange(size) - (size - 1) / 2) / size
    return np.exp(-(place[:, None] ** 2 + place**2) / (2 * MIDDLE**2))


def show_heat(table: pd.DataFrame) -> None:
    """Print means over slices with their intervals."""
    patients = table["patient_id"].to_numpy()
    print(f"{len(table):,} slices with blood, of {len(set(patients))} patients")
    print(f"the bleed's own share of the image: {table['size'].mean():.3f}")
    for column in table.columns[2:]:
        low, high = mean_interval(table[column].to_numpy(), patients)
        print(f"{column:32}{table[column].mean():.3f}  [{low:.3f}, {high:.3f}]")


def show_sizes(slices: pd.DataFrame, bled: pd.DataFrame) -> None:
    """Print how many slices with blood are found, by its area, with a false alarm in ten slices without."""
    limit = slices.loc[slices[LABELS[ANY]] == 0, "said"].quantile(SPECIFICITY)
    groups = pd.cut(bled["area"], [0, *SIZES.values()], right=False, labels=list(SIZES))
    for name in SIZES:
        some = bled[groups == name]
        if some.empty:
            continue
        found = (some["said"] > limit).to_numpy(float)
        low, high = mean_interval(found, some["patient_id"].to_numpy())
        print(f"{name:20}{len(some):5} slices   found {found.mean():.3f}  [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    torch.manual_seed(0)  # of the random weights
    command(main, HeatOptions)
