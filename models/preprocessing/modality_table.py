"""The Modality LUT: a table from stored values to Hounsfield units, in place of slope and intercept (PS3.3 C.11.1)."""

from dataclasses import dataclass

import numpy as np
import pydicom
from pydicom.pixels import apply_modality_lut

from models.preprocessing.elements import PARSER_ERRORS, Reason, UnreadableSliceError, number_of


@dataclass(frozen=True)
class ModalityTable:
    """A checked item of the ModalityLUTSequence."""

    item: pydicom.Dataset
    type: str  # "HU" for Hounsfield units

    def apply(self, stored: np.ndarray) -> np.ndarray:
        """Stored values -> those of the table, int32 of the same shape; Hounsfield units may be negative."""
        header = pydicom.Dataset()
        header.ModalityLUTSequence = [self.item]
        values = apply_modality_lut(stored.astype(np.int32), header)
        is_signed = self.type == "HU" and values.dtype == np.uint16
        return (values.view(np.int16) if is_signed else values).astype(np.int32)


def read_modality_table(header: dict) -> ModalityTable | None:
    """The table of a header, None where there is none. Raises UnreadableSliceError if it cannot be used."""
    if not (items := header.get("ModalityLUTSequence")):
        return None
    try:
        source = items[0]
        source.PixelRepresentation = int(number_of(header, "PixelRepresentation"))  # tells how to read the descriptor
        entries, first, bits = source.LUTDescriptor
        entries, bits = entries % (1 << 16) or 1 << 16, 8 if bits <= 8 else 16
        is_little_endian = getattr(source.get_item("LUTData"), "is_little_endian", True)
        values = source.LUTData
        if isinstance(values, bytes):
            values = np.frombuffer(values, "<u2" if is_little_endian else ">u2")
        item = pydicom.Dataset()
        item.LUTDescriptor = [entries, first, bits]
        item.add_new("LUTData", "US", [int(value) % (1 << bits) for value in values[:entries]])
        if len(item.LUTData) < entries:
            raise ValueError("the table is shorter than it says")
        return ModalityTable(item, str(source.get("ModalityLUTType", "")).strip())
    except PARSER_ERRORS as error:  # pydicom parses an element when it is asked for
        raise UnreadableSliceError(Reason.RESCALE) from error
