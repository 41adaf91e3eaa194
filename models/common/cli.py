"""From a dataclass to a command line."""

import sys
from collections.abc import Callable
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
    kind, defaults = (options, tyro.MISSING) if isinstance(options, type) else (type(options), options)
    description = sys.modules["__main__"].__doc__
    parsed = tyro.cli(kind, default=defaults, description=description, config=(tyro.conf.OmitArgPrefixes,))
    try:
        function(parsed)
    except InputError as error:
        sys.exit(f"error: {error}")
