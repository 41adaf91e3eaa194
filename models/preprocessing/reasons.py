"""Why a file gives no slice: the closed list of reasons, and the error that carries one."""

from enum import Enum


class Reason(Enum):
    """Why a file gives no slice: the closed list."""

    NOT_OPENED = "cannot be opened"
    ARCHIVE = "an archive that is damaged, or of a kind that is not read in place: unpack it, or pack it as a zip"
    PACKED = "encrypted, or packed by another method than deflate: unpack its archive, or pack it again"
    NOT_A_MEMBER = "a link, a hole, a name or a place that leads elsewhere in its archive: unpack that and look"
    DAMAGED_MEMBER = "damaged in its archive: download or pack that again"
    NOT_DICOM = "not a DICOM file"
    HEADER = "the header is damaged"
    UNREASONABLE = "the header claims more than a CT series can hold"
    PAIR = "a NIfTI or Analyze pair of .hdr and .img: make one .nii of it"
    VOLUMES = "several volumes in one NIfTI file: split it, one volume a file"
    NO_IDENTIFIER = "no usable SOPInstanceUID or SeriesInstanceUID in the header"
    NOT_CT = "not a CT image"
    LOCALIZER = "a localizer, not a slice"
    PICTURE = "a picture with text in its pixels, not a slice"
    NO_PIXELS = "no pixels"
    PIXEL_FORMAT = "not a grey-scale image, or a pixel format that is not known"
    RESCALE = "the rescale slope or intercept is not a usable number"
    TRUNCATED = "pixels are cut off"
    COMPRESSION = "a compression that is not known"
    NO_DECODER = "needs a decoder that is not installed: pip install imagecodecs pyjpegls pylibjpeg-openjpeg"
    DECODING = "compressed pixels cannot be decoded"


class UnreadableSliceError(Exception):
    """A file that gives no slice; `rows` are the header rows of its slices, as far as they could be read."""

    def __init__(self, reason: Reason, rows: list[dict] | None = None) -> None:
        super().__init__(reason.value)
        self.reason, self.rows = reason, rows or []
