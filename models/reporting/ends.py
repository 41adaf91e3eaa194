"""What the two ends of a series are called."""

import pandas as pd

from models.preprocessing.geometry import plane_of

_ENDS = {"axial": ("feet", "head"), "coronal": ("front", "back"), "sagittal": ("right", "left")}
_UNKNOWN = "first slice", "last slice"


def ends_of(slices: pd.DataFrame) -> tuple[str, str]:
    """Where a series begins and where it ends, along z, by its rows of the metadata in order.

    Where orientation or positions are not told, nobody knows which end is which.
    """
    if slices["z"].isna().any():
        return _UNKNOWN
    return _ENDS.get(plane_of(slices), _UNKNOWN)
