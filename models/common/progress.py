"""Progress of long work: a bar with the time left, and a line now and then where there is no terminal."""

import sys

from tqdm.auto import tqdm

LINE_SECONDS = 60  # between the lines of a log, which keeps all of them


def progress_bar(title: str, total: int, shown: bool = True, done: int = 0, **words) -> tqdm:
    """A bar on stderr for `total` pieces of work, of which some are `done`; `words` are tqdm's own."""
    pause = 0.1 if sys.stderr.isatty() or "ipykernel" in sys.modules else LINE_SECONDS
    return tqdm(
        total=total, initial=done, desc=title, mininterval=pause, dynamic_ncols=True, disable=not shown, **words
    )
