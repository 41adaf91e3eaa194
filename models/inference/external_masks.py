"""The sets whose labels are masks: INSTANCE 2022, BHSD and MBH-Seg, as their files are laid out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.labels import LABELS, SUBTYPES
from models.inference.external_labels import Published, of_slices, only_any
from models.inference.external_names import Set, name_in
from models.inference.external_volumes import Drawn, read_mask

# The folders in which sets keep their masks; their images lie in data, images, imagesTr, imagesTs and ct_scans.
_FOLDERS = {"label", "masks", "ground truths", "ground_truths", "labelsTr", "labelsTs"}
_CLASSES = dict(enumerate(SUBTYPES, start=1))  # dataset.json of BHSD: the five in the order of the alphabet


def find_masks(folder: Path, published: Set) -> dict[str, list[Path]]:
    """The masks of each study: files in the folder that is named, or in those below it that sets keep masks in.

    MBH-Seg 2025 has a folder a study, with image.nii.gz and a label_annot_<n>.nii.gz of each annotator. Raises
    InputError if there are none, or two of one name.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; name that of the masks with --labels")
    found: dict[str, list[Path]] = {}
    for path in sorted(file for end in ("nii", "nii.gz") for file in folder.glob(f"**/*.{end}")):
        of_annotator = path.name.startswith("label_annot_")
        name = name_in(published, path.parent.name if of_annotator else path.name)
        if name is None or not (of_annotator or path.parent == folder or path.parent.name in _FOLDERS):
            continue
        if name in found and not of_annotator:
            raise InputError(f"{found[name][0]} and {path} are masks of one name; keep one of them")
        found.setdefault(name, []).append(path)
    if not found:
        raise InputError(f"no masks of {published} in {folder}; name the folder that they lie in with --labels")
    return found


def read_instance(folder: Path) -> Published:
    """Slices of INSTANCE 2022: binary masks label/001.nii.gz ... 100.nii.gz, which tell of `any` alone.

    Source: the challenge's paper (arXiv 2301.03281), which trains on 100 studies, all with hemorrhage; the layout of
    its archive by programs that read it. Raises InputError as `find_masks` and `read_mask`, and for several classes.
    """
    tables = []
    for name, paths in find_masks(folder, "instance").items():
        mask = read_mask(paths[0])
        if len(frozenset().union(*mask.values)) > 1:
            raise InputError(f"{paths[0]} has several classes, and INSTANCE's masks one; is it another set?")
        tables.append(_table(name, mask.z, {"any": [bool(values) for values in mask.values]}))
    return of_slices("instance", ("any",), only_any(pd.concat(tables)))


def read_bhsd(folder: Path) -> Published:
    """Slices of BHSD or MBH-Seg: masks of the challenge's own studies, ID_<patient>_ID_<study>.nii.gz.

    Their values: 1 epidural, 2 intraparenchymal, 3 intraventricular, 4 subarachnoid, 5 subdural (dataset.json of BHSD,
    Wu et al. 2023). Of several annotators, of MBH-Seg 2025, a slice has what more than half of them have drawn in it.
    Raises InputError as `find_masks` and `read_mask`, and for other values.
    """
    tables = []
    for name, paths in find_masks(folder, "bhsd").items():
        masks = [read_mask(path) for path in paths]
        if wrong := frozenset().union(*(values for mask in masks for values in mask.values)) - set(_CLASSES):
            raise InputError(f"{paths[0]} holds {min(wrong)}, and classes are 1 to {len(SUBTYPES)}; is it another set?")
        if len({len(mask.values) for mask in masks}) > 1:
            raise InputError(f"the masks of {name} have different numbers of slices; download them anew")
        tables.append(_table(name, masks[0].z, _majority(masks)))
    table = pd.concat(tables)
    return of_slices("bhsd", LABELS, table.assign(any=table[list(SUBTYPES)].max(axis=1)))


def _majority(masks: Sequence[Drawn]) -> dict[str, list[bool]]:
    """What more than half of the annotators have drawn, by label, of each slice."""
    return {
        label: [
            sum(value in drawn for drawn in slices) > len(masks) / 2
            for slices in zip(*(mask.values for mask in masks), strict=True)
        ]
        for value, label in _CLASSES.items()
    }


def _table(name: str, z: np.ndarray, columns: Mapping[str, Sequence[bool]]) -> pd.DataFrame:
    table = pd.DataFrame(dict(columns)).astype(float)
    return table.assign(study=name, number=range(1, len(z) + 1), z=z)
