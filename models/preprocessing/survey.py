"""The first look: which files there are, what the cache knows of them already, and which series they make."""

from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from models.common.errors import InputError
from models.common.folders import Work
from models.preprocessing.cache import cached_settings, origin_of, refuse_older, refuse_other_raw, source_of
from models.preprocessing.dicomdir import absent_files
from models.preprocessing.drawn import is_drawn
from models.preprocessing.grouping import BATCH, Look, SeriesTask, group_by_series, look_at, named_files
from models.preprocessing.manifest import FORMAT, Known, known_files
from models.preprocessing.options import PrepareOptions
from models.preprocessing.parallel import progress_batches, progress_map
from models.preprocessing.problems import Problem, ProblemRows, problem_rows
from models.preprocessing.pseudonyms import Pseudonyms, read_key
from models.preprocessing.raw import RawFolder


@dataclass(frozen=True)
class Survey:
    """What is there before the work begins: the files, and what the cache tells of them."""

    looks: dict[str, list[Look]]  # the files of each split
    known: dict[str, Known]  # the files of the manifest, by name
    cached: dict[str, Any]  # what cache/prepare.json tells, {} without it
    settings: dict[str, Any]  # what it is to tell
    pseudonyms: Pseudonyms
    origin: dict[str, str]  # where the data lie, which no result depends on

    @property
    def is_complete(self) -> bool:
        """Whether the cache was made of these files with these settings, as far as what it tells of itself."""
        files = (file for split in self.looks.values() for file in split if file.reason is None)
        is_marked = "files" in self.cached and self.settings.items() <= self.cached.items()
        return is_marked and all(file.name in self.known for file in files)


def survey(raw: RawFolder, work: Work, options: PrepareOptions) -> Survey:
    """Look at each file of each split; one that the manifest knows and that has not changed is not opened.

    Raises InputError for a cache that was made from other data, with other settings or by an older version.
    """
    refuse_older(work)
    settings = {"format": FORMAT, "folds": options.folds, "seed": options.seed}
    cached = cached_settings(work, settings)
    pseudonyms = Pseudonyms(read_key(work.key), challenge=raw.stage is not None)
    known = {} if options.check else read_manifest(work, options.jobs)
    looks, found = {}, {split: raw.files(split) for split in raw.splits}
    for split, of_split in found.items():
        files = named_files(of_split, raw.root, pseudonyms, known)
        look, title = partial(look_at, pseudonyms), f"{split}: series of each file"
        looks[split] = progress_batches(look, files, options.jobs, title, BATCH, options.dask)
    refuse_other_raw(work, known, (file for split in looks.values() for file in split))
    sizes = {*options.image_size, *(size for size in cached.get("image_size", []) if work.slices(size).is_dir())}
    settings |= {
        "source": source_of(raw, options.labels, looks),
        "take": sorted(options.take),
        "image_size": sorted(sizes),
    }
    if drawn := is_drawn(chain.from_iterable(found.values()), raw.root):
        settings["synthetic"] = True
    return Survey(looks, known, cached, settings, pseudonyms, origin_of(raw, options.data, options.labels, drawn))


def read_manifest(work: Work, jobs: int) -> dict[str, Known]:
    """What is known of each file that the cache was made of, by its name."""
    paths = sorted(work.manifest.glob("*.json"))
    if not paths:
        return {}
    return dict(file for files in progress_map(known_files, paths, jobs, "manifest", most=BATCH) for file in files)


def find_series(
    found: Survey, raw: RawFolder, work: Work, options: PrepareOptions
) -> tuple[dict[str, list[SeriesTask]], ProblemRows]:
    """The series of each split, and the problems of files that belong to none.

    Raises InputError for a series that has files in both splits.
    """
    sizes = () if options.check else tuple(found.settings["image_size"])
    tasks, problems = {}, []
    for split, files in found.looks.items():
        tasks[split], odd = group_by_series(files, raw, work, sizes, found.pseudonyms, options.take, options.retry)
        absent = [found.pseudonyms.file(path, raw.root) for path in absent_files(file.path for file in files)]
        problems += odd + problem_rows(Problem.ABSENT, absent)
    keys = [{task.series for task in split} for split in tasks.values()]
    if len(keys) > 1 and (both := keys[0] & keys[1]):
        raise InputError(f"series {min(both)} has files in both {raw.train} and {raw.test}; move them into one of them")
    return tasks, problems
