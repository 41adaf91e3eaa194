"""From a dataclass to a command line."""

import io
import sys
from collections.abc import Callable
from functools import partial
from typing import NoReturn, TypeVar

import tyro

from models.common.errors import InputError
from models.common.patience import ENVIRONMENT
from models.common.process import start_process
from models.common.session import UNFINISHED, OutOfTime

Options = TypeVar("Options")


def command(function: Callable[[Options], int | None], options: type[Options] | Options, error_code: int = 1) -> None:
    """Parse the command line into a dataclass and call `function` with it, which may return an exit code.

    `options` is the dataclass, or an instance whose values become the defaults. Unknown flags end the process with
    exit code 2 (tyro); an `InputError`, or what the system refuses, is one line and ends it with `error_code`, Ctrl-C
    with 130, the end of a budget with 75.
    """
    start_process()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of files may not be UTF-8; and whoever reads along, a notebook say, wants a line when it is said.
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    asked = partial(tyro.cli, description=sys.modules["__main__"].__doc__, config=(tyro.conf.OmitArgPrefixes,))
    parsed = asked(options) if isinstance(options, type) else asked(type(options), default=options)
    try:
        if code := function(parsed):
            sys.exit(code)
    except InputError as error:
        _end(str(error), error_code)
    except OSError as error:
        if error.errno not in ENVIRONMENT:
            raise
        what = f"{error.filename or 'the system'}: {error.strerror}"
        _end(f"{what}; mend that, and run the same command again", error_code)
    except OutOfTime:
        print("stopped at the end of --budget-hours; the same command goes on where it was", file=sys.stderr)
        sys.exit(UNFINISHED)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it was", file=sys.stderr)
        sys.exit(130)


def _end(error: str, code: int) -> NoReturn:
    if code == 1:
        sys.exit(f"error: {error}")  # Python prints it, and ends with 1
    print(f"error: {error}", file=sys.stderr)
    sys.exit(code)
