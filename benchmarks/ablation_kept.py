"""What is kept of each cell of the ablation: its loss, patient by patient, in a table beside the results.

With it seeds can be added on another day, or another machine, and a difference be tested anew, without a training.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from experiment import known_slices

from models.common.errors import InputError
from models.common.files import write_parquet
from models.common.folders import Work
from models.common.labels import LABELS, METRIC_WEIGHTS
from models.inference.comparing import Resampled, drawn_totals
from models.inference.predictions import align
from models.training.metric import slice_losses

CELL = ["network", "change", "seed"]
COLUMNS = ["plan", *CELL, "commit", "s CPU", "whom", "patient", "slices", "loss"]
DRAWINGS, PEOPLE = "drawings", "people"  # on whom
DRAWS, SEED = 1000, 0  # of patients, the same for whatever cell


class Cell(NamedTuple):
    """A change of a network with a seed."""

    network: str
    change: str
    seed: int

    @property
    def name(self) -> str:
        """That of its run."""
        return f"{self.network}_{self.change}_{self.seed}"


def patient_losses(said: pd.DataFrame, work: Work) -> pd.DataFrame:
    """A row for each patient, in the order of their names: patient (a number), slices, loss (weighted log loss).

    Of predictions that are indexed by `image_id`, columns LABELS.
    """
    known = align(known_slices(work), said.index.to_series(), "the table of labels")
    losses = np.average(slice_losses(known[list(LABELS)].to_numpy(), said.to_numpy()), axis=1, weights=METRIC_WEIGHTS)
    of_patient = pd.Series(losses).groupby(known["patient_id"].to_numpy())
    return pd.DataFrame({"patient": range(of_patient.ngroups), "slices": of_patient.size(), "loss": of_patient.mean()})


def resampled(losses: pd.DataFrame) -> Resampled:
    """The loss of all slices, and of those of drawn patients, of a table as `patient_losses` gives it."""
    totals = drawn_totals(np.column_stack([losses["loss"] * losses["slices"], losses["slices"]]), DRAWS, SEED)
    drawn = totals[:, :1] / totals[:, 1:]
    return Resampled(drawn[0], drawn[1:], len(losses), SEED)


def read_kept(file: Path, plan: str) -> pd.DataFrame:
    """What is kept of the cells of a plan, columns COLUMNS, a row a patient; none where there is no file yet."""
    kept = pd.read_parquet(file) if file.is_file() else pd.DataFrame(columns=COLUMNS)
    return kept[kept["plan"] == plan]


def keep(file: Path, measured: pd.DataFrame) -> None:
    """Keep what cells have scored, columns COLUMNS.

    What is compared was trained on one machine: of a network with a seed that is measured anew nothing older stays.
    Raises InputError where what is kept is of other patients.
    """
    known = [pd.read_parquet(file)] if file.is_file() else []
    table = pd.concat([*known, measured], keys=range(len(known) + 1), names=["written"])
    latest = table.reset_index("written").groupby(["plan", "network", "seed"])["written"].transform("max")
    table = table[latest.to_numpy() == table.index.get_level_values("written")].reset_index(drop=True)
    patients = table.groupby(["plan", "whom", *CELL])["slices"].agg(tuple)
    for (plan, whom), of in patients.groupby(["plan", "whom"]):
        if of.nunique() > 1:
            raise InputError(f"{file} is of other {whom} with {plan} than this run; move it away to begin anew")
    write_parquet(file, table)
