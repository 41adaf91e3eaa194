"""predict.py: what somebody names -> answers, once, or of a drop folder for as long as it is watched."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from models.common.errors import InputError
from models.common.patience import GoneError
from models.common.progress import say
from models.inference.asked import PredictOptions
from models.preprocessing.drawn import is_drawn
from models.preprocessing.given import Given, find_given
from models.preprocessing.manifest import Known
from models.preprocessing.own_studies import OwnStudy, find_studies
from models.preprocessing.problems import ProblemRows, count_lost_files, problem_table
from models.preprocessing.pseudonyms import Pseudonyms
from models.reporting.answers import Errand, answer_all, command_of, court_of, open_output

SOME_REFUSED = 3  # exit code
_SHOWN, _KINDS = 20, 3  # studies on the screen, and reasons in an error
_LOOKS = 4  # at a drop folder while a study is to be quiet


def predict(options: PredictOptions) -> int:
    """Answer all studies, and return the exit code: 0, or SOME_REFUSED, also for files that may have been slices.

    Raises InputError for paths that hold no CT, for weights that cannot be used, a key that no series has, and a folder
    that cannot be written to or holds answers of another kind.
    """
    paths = options.paths or ((options.watch,) if options.watch else ())
    given = find_given(paths, _own(options)) if options.watch is None else Given(options.watch.absolute(), [])
    synthetic = is_drawn(given.files, given.root)
    series = options.series
    court = court_of(options, synthetic)
    for note in court.notes:
        print(f"warning: {note}")
    if options.dicom:
        print("note: DICOM objects carry the identity of the patient, and belong into the study")
    errand = Errand(options, given.root, synthetic, command_of(options))
    with open_output(options, court) as pseudonyms:
        if options.watch is not None:
            watch(options.watch, errand, pseudonyms)
        studies, problems = find_studies(given, pseudonyms, options.jobs, options.dask)
        _require_studies(studies, problems, paths)
        told = answer_all(studies, errand)
    _require_series(series, told)
    _summarise(told, options.output, problems)
    is_lost = count_lost_files(problem_table(problems)) > 0
    return SOME_REFUSED if is_lost or any(one["verdict"] == "refused" for one in told) else 0


def watch(folder: Path, errand: Errand, pseudonyms: Pseudonyms) -> None:
    """Answer each study of a drop folder once its files have not changed for a while; until the process is stopped.

    Raises InputError if the folder is not there, or a study cannot be answered for a reason that is not its own.
    """
    options, known = errand.options, dict[str, Known]()
    if not folder.is_dir():
        raise InputError(f"no folder {folder} to watch; make it, or name another")
    print(f"watching {folder}; a study is answered when its files have been quiet for {options.quiet:g} s", flush=True)
    drop = _Drop()

    def look() -> None:
        studies, problems = _look_into(folder, options, pseudonyms, known)
        ready = drop.quiet({study.key: study.content for study in studies}, options.quiet)
        if ready:
            now = [study for study in studies if study.key in ready]
            synthetic = is_drawn((file.path for study in now for file in study.files), folder.absolute())
            for one in answer_all(now, errand._replace(synthetic=synthetic)):
                say(f"{one['study']}: {sentence(one)}")
        strange = drop.quiet({file: problem for file, problem, _ in problems}, options.quiet)
        for file, problem in strange.items():
            say(f"{file} belongs to no study: {problem}")
        drop.done.update(ready | strange)

    while True:
        try:
            look()
        except GoneError:  # a sender renames what has arrived, or somebody clears up: the next look shows it
            if not folder.is_dir():
                raise
            say("a file has gone while it was looked for; looking again")
        sleep(max(0.2, options.quiet / _LOOKS))


@dataclass
class _Drop:
    """What lies in a drop folder by name: studies with their content, and files of none with the reason."""

    seen: dict[str, tuple[str, float]] = field(default_factory=dict)  # and since when it is so
    done: dict[str, str] = field(default_factory=dict)

    def quiet(self, here: dict[str, str], seconds: float) -> dict[str, str]:
        """What of it is not done, and has been so for some seconds."""
        now = monotonic()
        for name, content in here.items():
            if self.seen.get(name, ("", 0))[0] != content:
                self.seen[name] = content, now
        new = {name: content for name, content in here.items() if self.done.get(name) != content}
        return {name: content for name, content in new.items() if now - self.seen[name][1] >= seconds}


def sentence(told: dict[str, Any]) -> str:
    """An answer on one line, from what answer.json tells."""
    if told["study_probability"] is None:
        return f"refused: {'; '.join(told['reasons'])}"
    low, high = told["any_range"]
    text = f"any hemorrhage {told['study_probability']['any']:.1%} ({low:.1%} to {high:.1%} by network and view)"
    return f"{text}, {told['verdict']}" + (f": {'; '.join(told['reasons'])}" if told["reasons"] else "")


def _look_into(
    folder: Path, options: PredictOptions, pseudonyms: Pseudonyms, known: dict[str, Known]
) -> tuple[list[OwnStudy], ProblemRows]:
    try:
        given = find_given((folder,), _own(options))
    except InputError:
        if not folder.is_dir():
            raise
        return [], []  # nothing has come yet
    return find_studies(given, pseudonyms, options.jobs, options.dask, known)


def _own(options: PredictOptions) -> list[Path]:
    """Folders that this writes to, which may lie in what is named."""
    return [folder for folder in (options.output, options.work) if folder is not None]


def _require_studies(studies: Sequence[OwnStudy], problems: ProblemRows, paths: Sequence[Path]) -> None:
    if not studies:
        what = ", ".join(_kinds(problems)[:_KINDS])
        raise InputError(f"no CT in {', '.join(map(str, paths))}: {what}; name another file, folder or archive")


def _kinds(problems: ProblemRows) -> list[str]:
    """Why files belong to no study, the most frequent reason first."""
    counts = Counter(problem for _, problem, _ in problems)
    return [f"{count:,} x {kind}" for kind, count in counts.most_common()]


def _require_series(series: Sequence[str], told: Sequence[dict[str, Any]]) -> None:
    there = {row["series_id"] for one in told for row in one["all_series"]}
    if unknown := set(series) - there:
        raise InputError(
            f"--series {min(unknown)}: there is no series of this key; answer.json of each study names them"
        )
    for one in told:
        others = {row["series_id"] for row in one["all_series"]} & set(series) - {one["series"]}
        if one["series"] in series and others:
            print(
                f"warning: {one['study']}: a study has one answer, that of --series {one['series']}; ask for "
                f"{' and '.join(sorted(others))} by itself"
            )


def _summarise(told: Sequence[dict[str, Any]], output: Path, problems: ProblemRows) -> None:
    order = sorted(told, key=lambda one: -(one["study_probability"] or {"any": -1})["any"])
    for one in order[:_SHOWN]:
        print(f"{one['study']}: {sentence(one)}")
    counts = Counter(one["verdict"] for one in told)
    text = ", ".join(f"{count:,} {verdict}" for verdict, count in sorted(counts.items()))
    print(f"{output / 'answers.csv'}: {len(told):,} studies, {text}")
    if problems:
        print(f"files that belong to no study: {', '.join(_kinds(problems))}")
