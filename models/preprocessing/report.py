"""What a person sees of `prepare.py`: the disk it will need, a summary at the end, a contact sheet."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from models.common.files import replacing
from models.common.folders import STORED, Work
from models.common.session import Session, gigabytes
from models.preprocessing.folds import label_shares
from models.preprocessing.grouping import SeriesTask
from models.preprocessing.hounsfield import HOUNSFIELD_RANGE
from models.preprocessing.origin import describe_synthetic
from models.preprocessing.pictures import contact_sheet
from models.preprocessing.problems import count_lost_files, count_problems, wait_for_decoder
from models.preprocessing.selection import count_states
from models.preprocessing.store import Series
from models.preprocessing.tables import UNREADABLE

_SCREEN = 40  # lines
PORTRAITS = 6  # series on the contact sheet

# Bytes a pixel of the store, measured on 302 slices of the challenge: noise takes the larger share of a small image's.
_BYTES_A_PIXEL = {64: 1.04, 224: 0.83, 512: 0.75}


def bytes_a_slice(image_size: int) -> float:
    """How much of the disk a slice of the challenge takes in the store."""
    sizes, bytes_a_pixel = zip(*_BYTES_A_PIXEL.items(), strict=True)
    return image_size**2 * float(np.interp(image_size, sizes, bytes_a_pixel))


def require_disk(work: Work, tasks: list[SeriesTask], session: Session) -> str:
    """One line on the disk that the missing stores will take. Raises InputError if it is not there."""
    needed = sum(
        len(task.files) * bytes_a_slice(size)
        for task in tasks
        for size in task.image_sizes
        if not work.series(size, task.series).is_file()
    )
    repair = "choose another folder with --work, fewer sizes with --image-size, or a part with --part"
    return session.require_room(work.cache, needed, "the store", repair)


def missing_decoders(tasks: list[SeriesTask]) -> list[str]:
    """A line for each package that decodes some of these files and is not installed, before the work begins."""
    lacking = Counter(file.lacks for task in tasks for file in task.files if file.lacks)
    total = sum(len(task.files) for task in tasks)
    return [
        f"{count:,} of {total:,} files cannot be decoded without {package}, which is not installed; "
        f"the others are prepared now, these by the same command after: pip install {package}"
        for package, count in sorted(lacking.items())
    ]


def judge(listed: Path, tables: dict[str, pd.DataFrame], problems: pd.DataFrame, min_readable: float) -> int:
    """The exit code: 0, or 3 where too few CT slices are readable or some wait for a decoder; then says what to do.

    `problems` stand in the file `listed`.
    """
    slices = pd.concat([table.loc[table["series_id"].notna(), "chunk"] for table in tables.values()])
    lost = (slices == UNREADABLE).sum() + count_lost_files(problems)
    due = len(slices) + count_lost_files(problems)
    waits = wait_for_decoder(problems["problem"])
    if waits:
        print("not finished: install what is missing and run the same command again")
    if lost > (1 - min_readable) * due:
        print(
            f"{lost:,} of {due:,} CT slices cannot be read, more than --min-readable {min_readable} allows: see "
            f"{listed}, mend or copy those files anew (models/find_files.py names them), or lower --min-readable"
        )
        return 3
    return 3 if waits else 0


def print_summary(work: Work, tables: dict[str, pd.DataFrame], problems: pd.DataFrame, listed: Path) -> None:
    """Counts of slices, series, patients and labels, each kind of problem with its treatment, and the disk used.

    `problems` stand in the file `listed`.
    """
    print(describe_synthetic(work), end="")
    for split, table in tables.items():
        series, patients = table["series_id"].nunique(), table["patient_id"].nunique()
        missing = (table["chunk"] == UNREADABLE).sum()
        print(f"{split}: {len(table):,} slices, {series:,} series, {patients:,} patients; {missing:,} without an image")
        if clipped := count_clipped(table):
            print(f"{split}: {clipped:,} slices hold values above {HOUNSFIELD_RANGE[1]:,} HU, which are stored as that")
    if "train" in tables:
        train = tables["train"]
        counts = [f"{label} {train[label].sum():,.0f} ({share:.1%})" for label, share in label_shares(train).items()]
        print(f"train labels: {', '.join(counts)}")
    for row in count_problems(problems).itertuples():
        print(f"{row.items:>9,}  {row.problem} -> {row.treatment}")
    print(f"{len(problems):,} lines in {listed}" if len(problems) else "nothing odd was found")
    for folder in sorted(work.cache.glob("slices_*")):
        files = [path for path in folder.glob(f"*{STORED}") if path.is_file()]
        print(f"{folder}: {len(files):,} series, {gigabytes(sum(file.stat().st_size for file in files))}")


def count_clipped(table: pd.DataFrame) -> int:
    """How many slices hold values above HOUNSFIELD_RANGE, of dense bone and metal; repaired slices are not counted."""
    slope, intercept = table["rescale_slope"].fillna(1), table["rescale_intercept"]
    highest = table["img_max"].where(slope > 0, table["img_min"]) * slope + intercept
    may_wrap = (table["bits_stored"] == 12) & (table["pixel_representation"] == 0) & (intercept > -100)
    return ((highest > HOUNSFIELD_RANGE[1]) & ~may_wrap).sum()


def print_series(series: pd.DataFrame, whole: bool) -> None:
    """How many series are left out, and what is odd about how many; with `whole` the table, if it fits on a screen."""
    taken = (series["taken"] != "left out").sum()
    print(f"{len(series):,} series, {taken:,} of them taken")
    for state, count in count_states(series):
        print(f"{count:>9,}  {state}")
    if whole and len(series) <= _SCREEN:
        print(series.drop(columns=["split", "states", "why", "part_of"]).to_string(index=False, na_rep="-"))


def write_contact_sheet(path: Path, work: Work, table: pd.DataFrame, image_size: int, title: str | None = None) -> None:
    """Draw the slice with most brain of some series through the windows, so that a person sees that they are right.

    Raises InputError if a store is missing or damaged, or the picture cannot be written.
    """
    readable = table[table["chunk"] != UNREADABLE]
    names = readable["series_id"].unique()
    chosen = names[np.unique(np.linspace(0, len(names) - 1, PORTRAITS).astype(int))] if len(names) else []
    slices, captions = [], []
    for name in chosen:
        row = readable.loc[readable.loc[readable["series_id"] == name, "img_pct_window"].idxmax()]
        slices.append(Series(work.series(image_size, name)).read(int(row["chunk"])))
        captions.append(row["image_id"])
    if slices:
        sheet = contact_sheet(np.stack(slices), captions, title=title)
        with replacing(path) as temporary:
            temporary.write_bytes(cv2.imencode(".png", sheet)[1].tobytes())
