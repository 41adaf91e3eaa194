"""Errors of the system: waited for a little, then told on one line, and never taken for a property of the data."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from models.common.errors import InputError

# What a system answers that is busy, full, broken or closed; anything else may be a defect of this project.
ENVIRONMENT = {
    *(errno.EACCES, errno.EAGAIN, errno.EBUSY, errno.EDQUOT, errno.EHOSTDOWN, errno.EIO, errno.EMFILE, errno.ENFILE),
    *(errno.ENODEV, errno.ENOLCK, errno.ENOMEM, errno.ENOSPC, errno.ENOTCONN, errno.EPERM, errno.EROFS, errno.ESTALE),
    errno.ETIMEDOUT,
}
WAITS = (0.1, 0.5, 2.0)  # seconds before each further try

Result = TypeVar("Result")


def patiently(function: Callable[[], Result], path: object) -> Result:
    """What a function returns that reads a path; after an error of the system it is called again, some times.

    `path` is what a message names. Raises InputError naming it if the error stays (a failing disk, a lost mount, no
    permission, no memory). Any other exception gets a note that names it.
    """
    for wait in (*WAITS, None):
        try:
            return function()
        except InputError:
            raise
        except (OSError, MemoryError) as error:
            if wait is None:
                raise unreadable(path, error) from error
            time.sleep(wait)
        except Exception as error:
            error.add_note(f"while reading {path}")
            raise
    raise AssertionError  # not reached


class GoneError(InputError):
    """A file that was listed is not there any more: somebody moves or renames files at the moment."""


def unreadable(path: object, error: OSError | MemoryError) -> InputError:
    """The error for a path that the system does not let this process read; a GoneError where it has gone."""
    reason = "not enough memory" if isinstance(error, MemoryError) else error.strerror or error
    where = getattr(error, "filename", None) or path
    kind = GoneError if isinstance(error, FileNotFoundError) else InputError
    return kind(f"cannot read {where}: {reason}; mend that and run the same command again, which goes on from there")
