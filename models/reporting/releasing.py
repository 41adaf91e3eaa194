"""release.py: finished runs -> a folder that travels, and a zip of it."""

import json
import shutil
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.common.errors import InputError
from models.common.files import hash_file, replacing, require_writable, write_json, write_text
from models.common.folders import RELEASE
from models.common.labels import LABELS
from models.common.locks import only_process
from models.common.progress import say
from models.common.repair import command_of
from models.inference.operating import Patients, all_points, meaning_of
from models.inference.own_slices import own_slices
from models.inference.release import FACTS, FORMAT, Frozen, fold_folder, is_release, points_to_json, read_release
from models.inference.release_files import Plan, choose_precision, folds_of, plan, whole_parts, write_counts, write_runs
from models.inference.release_options import ReleaseOptions
from models.inference.released_blend import ReleasedBlend, read_released_blend
from models.inference.robustness import measure_changes
from models.inference.runs import require_finished
from models.inference.scored import BLEND
from models.preprocessing.origin import is_synthetic, noted
from models.preprocessing.tables import read_slices
from models.reporting import card_text as words
from models.reporting.card import make_card
from models.reporting.card_fields import CARD_FACTS
from models.reporting.hub import facts_of_timm, write_for_others
from models.reporting.release_facts import count_data, count_patients, count_scored, count_training, measure_scores
from models.reporting.subject import join_truth, read_subject
from models.training.fingerprint import read_fingerprint
from models.training.run_record import RunRecord, commit, project_version, require_run

_OLDEST = (1980, 1, 1, 0, 0, 0)  # that a zip can tell: the same files give the same zip


def carry_out(options: ReleaseOptions) -> None:
    """Write the release and its zip; one that is there is left alone.

    Raises InputError if another one is there, a run or its blend lacks or is damaged, the folder cannot be written to,
    and for what nobody has said of the data.
    """
    work, folder = options.working_folder, options.output
    blend = None if single(options) else read_released_blend(work, options.runs)
    name = options.runs[0] if blend is None else BLEND
    speaking = {name: require_finished(work, name)} if blend is None else blend.folds
    planned = plan(work, name, speaking, None if blend is None else blend.shares)
    asked = what_is_asked(options)
    made_of = {called: record.weights_sha256 for called, record in records_of(work.runs, planned).items()}
    if is_release(folder):
        require_same(folder, asked, made_of, planned)
        print(f"{folder} is there; delete it to make it anew")
        if not zip_of(folder).is_file():
            write_zip(folder)
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there, and no release; choose another folder with --output")
    draft = folder.with_name(f".{folder.name}.draft")
    with only_process(folder.with_name(f".{folder.name}.lock"), "release.py", item=folder):
        shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
        require_writable(draft)
        write_release(options, planned, blend, {"asked": asked, "made_of": made_of}, draft)
        zip_of(folder).unlink(missing_ok=True)  # of a release that was deleted
        draft.replace(folder)
    write_zip(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB, {folder.name}.zip beside it; {RELEASE} has the sha256 "
          f"{hash_file(folder / RELEASE)}")  # fmt: skip


def single(options: ReleaseOptions) -> bool:
    """Whether one run is to be released, and no blend."""
    return len(options.runs) == 1 and options.runs[0] != BLEND


def what_is_asked(options: ReleaseOptions) -> dict[str, Any]:
    """What somebody has said, and what is known by itself. Raises InputError for what nobody has said."""
    work = options.working_folder
    drawn = is_synthetic(work)
    if options.license is None and not drawn:
        raise InputError("whoever gets the weights has to know what is allowed: say it with --license, like mit")
    if options.data_source is None and not drawn and "data" not in noted(work):
        raise InputError(
            "these slices are your own: say with --data-source in a sentence where they, and their labels, are from, "
            "and what their licence allows"
        )
    names = ("data_source", "intended_use", "contact", "dataset", "slices")
    return {name: getattr(options, name) for name in names} | {"license": options.license or "mit"}


def write_release(
    options: ReleaseOptions, planned: Plan, blend: ReleasedBlend | None, said: Mapping[str, Any], folder: Path
) -> None:
    """Write all files of a release into a folder, release.json last. Raises InputError as `carry_out`."""
    work = options.working_folder
    metadata, subject = read_slices(work, "train"), read_subject(work, planned.name)
    if blend is not None and blend.unseen is not None:
        subject = subject._replace(predictions=blend.unseen)
    say(f"{options.output}: measuring what float16 changes")
    precision = choose_precision(work, planned, options.slices, options.device)
    write_runs(folder, work, planned.all, whole_parts(precision))
    scored = join_truth(subject, metadata)
    patients, studies = (scored.slices[f"{of}_id"].to_numpy() for of in ("patient", "study"))
    write_counts(folder, patients, studies, scored.target, scored.probability)
    frozen = freeze(folder, count_patients(scored))
    records = records_of(folder, planned)
    told = tell(options, planned, blend, frozen, records) | dict(said)
    say(f"{options.output}: measuring scores")
    facts = {
        "data": count_data(metadata, work),
        "validated on": count_scored(scored),
        "scores": measure_scores(scored, metadata, work, frozen),
        "float16": precision,
        "training": count_training(records, folder),
        "timm": facts_of_timm(folder, records),
        **measure_robustness(options, planned, folder),
    }
    write_json(folder / FACTS, facts)
    configs = {f"{name}/config.json": json.loads((folder / name / "config.json").read_text()) for name in records}
    card = make_card({CARD_FACTS: told, FACTS: facts, **configs}, list(configs))
    for name, text in {"card.md": card.markdown, "card.html": card.html, "sources.csv": card.sources}.items():
        write_text(folder / name, text)
    write_for_others(folder, told, facts, records)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sha256_of = {path.relative_to(folder).as_posix(): hash_file(path) for path in files}
    write_json(folder / RELEASE, told | {"sha256_of": sha256_of})


def freeze(folder: Path, patients: Patients) -> Frozen:
    """Calibration and operating points by the counts that lie in a folder; intervals are of so many patients.

    Raises InputError if they are damaged.
    """
    counts = read_fingerprint(folder)
    assert counts is not None  # they have just been written
    meaning = meaning_of([counts])
    return Frozen(meaning.slices, meaning.studies, all_points([counts], patients))


def tell(
    options: ReleaseOptions,
    planned: Plan,
    blend: ReleasedBlend | None,
    frozen: Frozen,
    records: Mapping[str, RunRecord],
) -> dict[str, Any]:
    """What release.json tells, but for what is said of it and the hashes."""
    work = options.working_folder
    drawn = is_synthetic(work) or any(record.ran.get("synthetic") for record in records.values())
    challenge = "data" in noted(work)
    source = options.data_source or (words.DRAWN if drawn else words.CHALLENGE)
    labels = words.DRAWN_LABELS if drawn else words.CHALLENGE_LABELS if challenge else words.OWN_LABELS
    members = [(run, folds, speaks) for runs, speaks in ((planned.silent, False), (planned.speaking, True))
               for run, folds in runs.items()]  # fmt: skip
    return {
        "format": FORMAT,
        "name": options.output.absolute().name,
        "synthetic": drawn,
        "members": [{"run": run, "folds": folds, "speaks": speaks} for run, folds, speaks in members],
        "blend": None if planned.shares is None else {label: planned.shares[label].to_json() for label in LABELS},
        "joined": describe_joined(planned, blend),
        "calibration": {
            of: {label: list(getattr(frozen, of)[label]) for label in LABELS} for of in ("slices", "studies")
        },
        "operating_points": points_to_json(frozen.points),
        "data_source": source,
        "labels_source": labels,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "project": project_version() or "not installed",
        "command": command_of("release", *options.runs),
    }


def describe_joined(planned: Plan, blend: ReleasedBlend | None) -> str:
    """How several networks become one answer, in a sentence."""
    if blend is None:
        return "Folds, where there are several, are averaged, each calibrated; a study has what its highest slice has."
    text = (
        "Folds of a run are averaged, and runs joined for each label by the weights below, which were fitted on "
        "out-of-fold predictions."
    )
    if blend.replaced:
        text += (
            f" The second level of blend.json ({', '.join(blend.replaced)}) does not travel: a weighted mean stands in "
            "its place, and all scores here are of that."
        )
    return text


def measure_robustness(options: ReleaseOptions, planned: Plan, folder: Path) -> dict[str, Any]:
    """What becomes of the answers of the networks, as they travel, where slices change. Raises as `measure_changes`."""
    work, fold = options.working_folder, planned.own_fold
    own = own_slices(work, fold, options.slices)
    say(f"{options.output}: measuring robustness on {len(own.slices):,} slices of the validation of fold {fold}")
    scores, strange = measure_changes(own, folds_of(folder, planned, fold), planned.shares, options.device)
    return {
        "measured on": {"fold": fold, "slices": len(own.slices), "series": len(own.series)},
        "robustness": scores,
        "strangeness": strange,
    }


def records_of(runs: Path, planned: Plan) -> dict[str, RunRecord]:
    """The record of each fold below a folder, by what it is called. Raises InputError if one lacks."""
    found = {f"{run}/fold{fold}": fold_folder(runs, run, fold) for run, folds in planned.all.items() for fold in folds}
    return {name: require_run(folder, "its training script") for name, folder in found.items()}


def require_same(folder: Path, asked: Mapping[str, Any], made_of: Mapping[str, str], planned: Plan) -> None:
    """Raise InputError if the release that is there was made of something else, or otherwise."""
    told = read_release(folder).told
    blend = None if planned.shares is None else {label: planned.shares[label].to_json() for label in LABELS}
    before, now = ({"weights": of[0], "blend": of[1], **of[2]} for of in (
        (told["made_of"], told["blend"], told["asked"]), (made_of, blend, asked)))  # fmt: skip
    if different := [name.replace("_", "-") for name in now if before.get(name) != now[name]]:
        what = ", ".join(different)
        raise InputError(f"{folder} was made with other {what}; delete it, or choose another folder with --output")


def write_zip(folder: Path) -> None:
    """Write FOLDER.zip beside a folder, which unpacks to it; not compressed, since weights do not shrink.

    Raises InputError if it cannot be written.
    """
    with replacing(zip_of(folder)) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = (Path(folder.name) / path.relative_to(folder)).as_posix()
            archive.writestr(zipfile.ZipInfo(name, _OLDEST), path.read_bytes())


def zip_of(folder: Path) -> Path:
    """Beside a folder."""
    return folder.with_name(f"{folder.name}.zip")
