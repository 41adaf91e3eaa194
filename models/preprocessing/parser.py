"""A DICOM file -> the elements that are asked for, within bounds. What fails is the file's fault or the system's.

Elements that were not asked for, names, dates and free text of a patient among them, are skipped where they stand.
"""

import errno
import io
import zlib
from collections.abc import Generator
from contextlib import contextmanager

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from models.preprocessing.beginning import begins_data_set, read_syntax
from models.preprocessing.elements import (
    MAX_BYTES,
    PARSER_ERRORS,
    PIXEL_DATA,
    BoundedReader,
    LargeReader,
    unvalidated,
)
from models.preprocessing.reasons import Reason, UnreadableSliceError

_BAD_SEEK = (None, errno.EINVAL, errno.EOVERFLOW)  # of what pydicom raises itself, or where a length leads nowhere


@unvalidated
def parse(file: BoundedReader, tags: list[BaseTag], stop_when=None) -> tuple[pydicom.Dataset, UID]:
    """The asked elements of a file, and its transfer syntax; of a large one those before the pixels, where it stops.

    Raises UnreadableSliceError, and OSError of the system.
    """
    if stop_when is None and isinstance(file, LargeReader):
        stop_when = _is_pixel_data
    head = file.peek(1)  # what is buffered: some thousand bytes
    syntax, place = read_syntax(head) or (None, 0)
    file.seek(place)
    if syntax == DeflatedExplicitVRLittleEndian:
        file, syntax = _inflate(file), ExplicitVRLittleEndian
    if syntax is not None:  # the way of nearly all files
        with parsing():
            implicit = syntax == ImplicitVRLittleEndian
            return read_dataset(file, implicit, True, stop_when=stop_when, specific_tags=[*tags]), syntax
    with parsing():
        dataset = read_partial(file, stop_when, force=begins_data_set(head), specific_tags=[*tags])
        return dataset, UID(dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian))


def _is_pixel_data(tag: BaseTag, *_) -> bool:
    return tag == PIXEL_DATA


def _inflate(file: BoundedReader) -> BoundedReader:
    """The rest of a deflated file, inflated within bounds; pydicom has none."""
    deflated = file.read()
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    with parsing():
        inflated = inflater.decompress(deflated, MAX_BYTES // 8)
    if inflater.unconsumed_tail:
        raise UnreadableSliceError(Reason.UNREASONABLE)
    return BoundedReader(io.BytesIO(inflated))


@contextmanager
def parsing() -> Generator[None]:
    """A block in which pydicom parses: what it fails with becomes UnreadableSliceError, but errors of the system.

    Let nothing else stand in the block: a defect of this project would be taken for damaged data.
    """
    try:
        yield
    except UnreadableSliceError:
        raise
    except InvalidDicomError as error:
        raise UnreadableSliceError(Reason.NOT_DICOM) from error
    except OSError as error:
        if error.errno not in _BAD_SEEK:
            raise
        # pydicom turns what the bounded reader raises within a sequence into an OSError of its own
        own = error.__context__
        raise UnreadableSliceError(own.reason if isinstance(own, UnreadableSliceError) else Reason.HEADER) from error
    except PARSER_ERRORS as error:
        raise UnreadableSliceError(Reason.HEADER) from error
