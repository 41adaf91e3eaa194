"""From a dataclass to a command line."""

import sys
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import tyro

from models.common.errors import InputError
from models.common.process import start_process

Options = TypeVar("Options")


def command(function: Callable[[Options], None], options: type[Options] | Options) -> None:
    """Parse the command line into a dataclass and call `function` with it.

    `options` is the dataclass, or an instance whose values become the defaults. Unknown flags end the process with
    exit code 2 (tyro); an `InputError` is printed as one line and ends it with exit code 1.
    """
    start_process()
    asked = partial(tyro.cli, description=sys.modules["__main__"].__doc__, config=(tyro.conf.OmitArgPrefixes,))
    parsed = asked(options) if isinstance(options, type) else asked(type(options), default=options)
    try:
        function(parsed)
    except InputError as error:
        sys.exit(f"error: {error}")
