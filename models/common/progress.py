"""Progress of long work: a bar with the time left, and a line now and then where there is no terminal."""

import sys

from tqdm.auto import tqdm

_LINE_SECONDS = 60  # between the lines of a log, which keeps all of them


def progress_bar(title: str, total: int | None, shown: bool = True, **words) -> tqdm:
    """A bar on stderr for `total` pieces of work, or for as many as there are; `words` are tqdm's own."""
    pause = 0.1 if _moves() else _LINE_SECONDS
    return tqdm(total=total, desc=title, mininterval=pause, dynamic_ncols=True, disable=not shown, **words)


def say(text: str) -> None:
    """Print a line above the bars."""
    if _moves():
        tqdm.write(text)
    else:
        print(text, flush=True)


def _moves() -> bool:
    """Whether a bar can move in its line: in a terminal and a notebook, not in a log."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules
