"""What a network sees: windows in Hounsfield units, of a slice or of its neighbours."""

import math
import re
from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np
import tyro

from models.common.errors import InputError

Unit = Literal["slices", "mm"]


class Window(NamedTuple):
    """A window in Hounsfield units: `center` ± `width` / 2 is mapped to black ... white (PS3.3 C.11.2.1.2)."""

    center: float
    width: float


class Channel(NamedTuple):
    """One input channel of a network: a window of the slice, or of another one of its series.

    `offset` leads along z (0: the slice itself), in places among the readable slices of the series or in millimetres,
    which mean the same anatomy in thin and in thick series (models/preprocessing/neighbours.py).
    """

    offset: float
    window: Window
    unit: Unit = "slices"

    @property
    def is_possible(self) -> bool:
        """Whether there can be such a slice: a finite offset, and a whole one in slices."""
        if self.unit not in get_args(Unit) or not math.isfinite(self.offset):
            return False
        return self.unit == "mm" or self.offset % 1 == 0

    def __str__(self) -> str:
        window = "/".join(map(_plain, self.window))
        if self.unit == "mm":
            return f"{window}@{_plain(self.offset)}mm"
        return f"{window}@{_plain(self.offset)}" if self.offset else window

    @classmethod
    def parse(cls, text: str) -> "Channel":
        """Read `center/width`, `center/width@slices` or `center/width@millimetres` with the ending `mm`.

        The notation of the command line and of config.json. Raises InputError for any other text.
        """
        match = re.fullmatch(r"(-?\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)(?:@([+-]?\d+)|@([+-]?\d+(?:\.\d+)?)mm)?", text)
        if not match:
            raise InputError(
                f"channel {text!r} is not of the form center/width or center/width@offset, like 40/80, 40/80@-1 "
                "(whole slices) or 40/80@-5mm"
            )
        center, width, slices, millimetres = match.groups()
        window = Window(float(center), float(width))
        return cls(float(millimetres), window, "mm") if millimetres else cls(int(slices or 0), window)


CommandLineChannel = Annotated[
    Channel,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="CENTER/WIDTH[@OFFSET[mm]]",
        instance_from_str=lambda texts: Channel.parse(texts[0]),
        is_instance=lambda value: isinstance(value, Channel),
        str_from_instance=lambda channel: [str(channel)],
    ),
]


def _plain(number: float) -> str:
    """The shortest decimal that is read as the same number, without an exponent: 40, 32.5."""
    return np.format_float_positional(number, trim="-")
