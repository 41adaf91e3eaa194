"""The sets whose labels are tables: CQ500 and PhysioNet's CT-ICH, as their files are laid out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from models.common.errors import InputError
from models.common.labels import LABELS, SUBTYPES
from models.inference.external_labels import (
    SLICE,
    Published,
    file_of,
    of_slices,
    read_table,
    with_any,
    zeros_and_ones,
)
from models.inference.external_names import name_in
from models.inference.external_volumes import places_of, read_mask

_READERS, _MAJORITY = 3, 2
_FINDINGS = {  # of CQ500 -> LABELS
    "EDH": "epidural",
    "IPH": "intraparenchymal",
    "IVH": "intraventricular",
    "SAH": "subarachnoid",
    "SDH": "subdural",
    "ICH": "any",
}
_CQ500 = "CQ500's reads.csv"

_TYPES = {label.capitalize(): label for label in SUBTYPES}  # columns of PhysioNet's
_PATIENT, _SLICE, _NONE = "PatientNumber", "SliceNumber", "No_Hemorrhage"
_SCANNED = {*range(49, 59), *range(66, 131)}
DIAGNOSES = "hemorrhage_diagnosis_raw_ct.csv"
_DEMOGRAPHICS = ("Patient_demographics.csv", "patient_demographics.csv")  # the files, and their readme
_PHYSIONET = f"{DIAGNOSES} of version 1.3.1, or the folder that holds it, ct_scans/ and masks/,"


def read_cq500(path: Path) -> Published:
    """The majority of CQ500's three readers, of each study: reads.csv, or a folder that holds it.

    Columns name (CQ500-CT-12), Category, then for each reader R1:ICH, R1:IPH, R1:IVH, R1:SDH, R1:EDH, R1:SAH and
    others, which are no hemorrhage. Source: the header of the published file; Chilamkurthy et al., Lancet 2018 (the
    majority). Raises InputError for a file of another layout, or a study that stands there twice.
    """
    path = file_of(path, ["reads.csv"], _CQ500)
    columns = [f"R{reader + 1}:{finding}" for reader in range(_READERS) for finding in _FINDINGS]
    table = read_table(path, ["name", *columns], _CQ500)
    names = [name_in("cq500", name) for name in table["name"]]
    if None in names:
        raise InputError(f"{path} names {table['name'][names.index(None)]!r}, no study of CQ500; name {_CQ500}")
    reads = zeros_and_ones(table[columns], path).to_numpy().reshape(len(table), _READERS, len(_FINDINGS))
    majority = pd.DataFrame(reads.sum(axis=1) >= _MAJORITY, index=names, columns=[*_FINDINGS.values()]).astype(float)
    if majority.index.has_duplicates:
        twice = majority.index[majority.index.duplicated()][0]
        raise InputError(f"{path} has several rows for {twice}; keep one of them")
    studies, notes = with_any(majority, majority["any"].to_numpy() > 0, path)
    return Published("cq500", LABELS, studies[list(LABELS)], pd.DataFrame(columns=[*SLICE, *LABELS]), tuple(notes))


def read_physionet(path: Path) -> Published:
    """Slices of PhysioNet's CT-ICH 1.3.1: hemorrhage_diagnosis_raw_ct.csv, or a folder that holds it.

    Columns PatientNumber (49 ... 130 without 59 ... 65), SliceNumber (from 1, as the slices stand in the NIfTI file),
    the five types, No_Hemorrhage, Fracture_Yes_No. It has no `any`: that is what is not No_Hemorrhage. Source: the
    readme and the program that the set comes with (Hssayeni, doi 10.13026/4nae-zg36). Raises InputError for another
    layout.
    """
    path = file_of(path, [DIAGNOSES], _PHYSIONET)
    table = read_table(path, [_PATIENT, _SLICE, *_TYPES, _NONE], _PHYSIONET)
    numbers = table[[_PATIENT, _SLICE]].apply(pd.to_numeric, errors="coerce")
    strange = ~numbers[_PATIENT].isin(_SCANNED)
    if strange.any():
        raise InputError(
            f"{path} tells of patient {table.loc[strange, _PATIENT].iloc[0]!r}, of whom version 1.3.1 has no scan; "
            f"older versions count the slices of pictures: name {_PHYSIONET} with --labels"
        )
    for patient, slices in numbers.groupby(_PATIENT)[_SLICE]:
        if sorted(slices) != [*range(1, len(slices) + 1)]:
            raise InputError(
                f"{path}: the slices of patient {patient} do not run from 1 to {len(slices)}; download it anew"
            )
    values = zeros_and_ones(table[[*_TYPES, _NONE]], path).rename(columns=_TYPES)
    slices, notes = with_any(values, values[_NONE].to_numpy() == 0, path)
    study = numbers[_PATIENT].astype(int).map("{:03d}".format)
    slices = slices.assign(study=study, number=numbers[_SLICE].astype(int))
    volumes = _volumes_beside(path.parent, sorted(set(study)))
    found = of_slices("physionet", LABELS, slices.merge(volumes, on=["study", "number"], how="left"), notes)
    return found._replace(notes=(*found.notes, *_beside_demographics(path.parent, found.studies)))


def _volumes_beside(folder: Path, names: Sequence[str]) -> pd.DataFrame:
    """`z` of slices by ct_scans/049.nii, and by masks/049.nii whether hemorrhage is drawn, where these lie beside."""
    tables = [pd.DataFrame(columns=SLICE)]
    for name in names:
        scan, mask = (folder / room / f"{name}.nii" for room in ("ct_scans", "masks"))
        columns: dict[str, Any] = {}
        if scan.is_file():
            columns["z"] = pd.Series(places_of(scan))
        if mask.is_file():
            columns["drawn"] = pd.Series([float(bool(values)) for values in read_mask(mask).values])
        own = pd.DataFrame(columns, columns=["z", "drawn"], dtype=float)
        tables.append(own.assign(study=name, number=range(1, len(own) + 1)))
    return pd.concat(tables).astype({"number": int, "z": float, "drawn": float})


def _beside_demographics(folder: Path, studies: pd.DataFrame) -> list[str]:
    """Notes on patients for whom the other table of the set tells other types, where it lies beside.

    Patient_demographics.csv has a header of two rows: the first spans the five types, the second names them. It has a
    row for each of the 82 patients, also those without a scan; an empty cell is a type that was not seen.
    """
    path = next((folder / name for name in _DEMOGRAPHICS if (folder / name).is_file()), None)
    if path is None:
        return []
    try:
        table = pd.read_csv(path, header=[0, 1], dtype=str)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); download it anew, or move it away") from error
    second = [name.strip().capitalize() for _, name in table.columns]
    if lacking := [name for name in _TYPES if name not in second]:
        raise InputError(f"{path} lacks the column {lacking[0]} in the second row of its header; download it anew")
    patients = pd.to_numeric(table.iloc[:, 0], errors="coerce")
    types = table.iloc[:, [second.index(name) for name in _TYPES]].fillna("0")
    told = (types.apply(lambda column: column.str.strip()) != "0").astype(float)
    told = told.set_axis([*_TYPES.values()], axis=1).set_axis(patients, axis=0)[patients.notna().to_numpy()]
    told = told.set_axis(told.index.astype(int).map("{:03d}".format), axis=0)
    both = studies.index.intersection(told.index)
    other = (told.loc[both] != studies.loc[both, list(_TYPES.values())]).any(axis=1)
    if not other.any():
        return [f"{path.name}: tells the same types of {len(both)} patients as their slices do"]
    return [f"{path.name}: tells other types of {other.sum()} patients than their slices do, first {both[other][0]}"]
