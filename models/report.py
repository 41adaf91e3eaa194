"""Report on a run, or on the blend: one HTML page that a person reads, in any browser, without a network.

    python models/report.py b2
    python models/report.py

Needs cache/ and finished folds in runs/b2; without a name blend/, which blend.py writes.
Writes report_b2.html: scores of slices and of studies beside the prior's with intervals, curves, calibration, which
type is taken for which, scores by subgroup, how sure the answers are, and the worst mistakes as images, which need a
slice store, with heat where the networks looked; and how all of it was made, and chosen on what. The same input gives
the same bytes.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from models.common.cli import command
from models.common.errors import InputError
from models.common.files import write_text
from models.common.folders import Stage, Work, WorkFolder, default_work
from models.preprocessing.tables import read_slices
from models.reporting.subject import BLEND, read_subject


@dataclass(frozen=True)
class ReportOptions:
    """The command line of this script."""

    name: Annotated[str, tyro.conf.Positional] = BLEND
    """the run, or "blend" """
    output: Path | None = None
    """the page to write; none: report_<name>.html in the working folder"""
    work: WorkFolder = field(default_factory=default_work)
    stage: Stage = None
    heat: bool = True
    """show where the networks looked: a minute for a large one"""


def report(options: ReportOptions) -> None:
    """Write the page. Raises InputError if there are no predictions, labels lack, or a file is damaged."""
    if Path(options.name).name != options.name:
        raise InputError(f"{options.name} is not the name of a run; name a folder of runs/ without its path")
    work = Work(options.work, options.stage)
    metadata = read_slices(work, "train")
    subject = read_subject(work, options.name)
    from models.reporting.page import render  # with matplotlib and scikit-learn, a second of imports

    page = render(subject, metadata, work, options.heat)
    output = options.output or work.root / f"report_{options.name}.html"
    write_text(output, page)
    print(f"{output}: {len(page.encode()) / 1e6:.1f} MB")


if __name__ == "__main__":
    command(report, ReportOptions)
