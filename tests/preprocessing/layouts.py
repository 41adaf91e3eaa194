"""A hundred folder layouts: trees, archives and Kaggle's layout of series of all kinds, and what is due of each.

    layout = draw_layout(seed, folder)   # writes folder/data
    wrong = compare(layout)              # prepares it: a line for each difference

The generator knows the answer from what it draws; the code under test is asked for nothing but the names that the
cache gives to identifiers.
"""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from layout_parts import FEW, NAMES, SIDE, Part, Row
from layout_series import Artist
from layout_trees import Layout, write, write_tree

from models.common.errors import InputError
from models.common.folders import Work
from models.common.labels import LABELS, SUBTYPES
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.problems import Problem
from models.preprocessing.pseudonyms import Pseudonyms
from models.preprocessing.reasons import Reason
from models.preprocessing.store import Series
from models.preprocessing.tables import UNREADABLE

KEY = "5e" * 32
PSEUDONYMS = Pseudonyms(bytes.fromhex(KEY))
WAYS = ("tree", "tree", "tree", "zip", "tar", "kaggle")
OF_PIXELS = (Reason.TRUNCATED.value, Reason.DECODING.value, Reason.COMPRESSION.value)  # told of what is taken alone
FACTS = ("plane", "kernel", "rescale", "contrast", "thickness", "states", "why", "taken", "split")


def draw_layout(seed: int, folder: Path) -> Layout:
    """Write a layout into a folder that is empty."""
    rng = np.random.default_rng([15, seed])
    artist = Artist(rng, f"1.2.826.{seed + 1}")
    way = str(rng.choice(WAYS))
    is_kaggle, nothing = way == "kaggle", way == "tree" and rng.random() < 0.12
    drawn = []
    for number in range(int(rng.integers(3, 6))):
        plain = number < (3 if is_kaggle else 1) and not nothing
        drawn.append(artist.draw_series(plain, nothing, own_names=is_kaggle))
        if rng.random() < 0.35:
            artist.add_stray(drawn[-1])
    layout = Layout(folder / "data", folder / "work", [f"seed {seed}", way], drawn)
    _choose(layout, rng)
    if is_kaggle:
        _write_kaggle(layout, rng)
    else:
        write_tree(layout, rng, way)
        if rng.random() < 0.5:
            _write_labels(layout, rng, folder / "labels.csv")
    write(layout.work / "pseudonyms.key", KEY.encode())
    return layout


def _choose(layout: Layout, rng: np.random.Generator) -> None:
    """Which parts are taken, some by --take, and how much must be readable."""
    layout.min_readable = float(rng.choice([0.99, 0.99, 0.9, 0.5]))
    for one in layout.drawn:
        for part in one.parts:
            part.taken = "left out" if part.why else "yes"
        if one.parts[0].why and len(one.parts) == 1 and rng.random() < 0.3:
            layout.take += (PSEUDONYMS.hash(one.parts[0].names["SeriesInstanceUID"]),)
            one.parts[0].taken = "by --take"


# ---- labels ----


def _write_labels(layout: Layout, rng: np.random.Generator, path: Path) -> None:
    """A table of --labels that names some images, series or studies: what it names is for training."""
    column = str(rng.choice(["SOPInstanceUID", *NAMES[:2]]))
    named: dict[str, tuple[int, ...]] = {}
    labelled = set()
    for one in layout.drawn:
        if rng.random() < 0.3 or (column == NAMES[0] and len({part.owner for part in one.parts}) > 1):
            continue
        for part in one.parts:
            of_part = _draw_labels(rng)
            for row in part.rows if all(row.has_own_name for row in part.rows) or column != "SOPInstanceUID" else ():
                name = row.uid if column == "SOPInstanceUID" else part.names[column]
                if column == "SOPInstanceUID" and rng.random() < 0.2:
                    continue
                named.setdefault(name, _draw_labels(rng) if column == "SOPInstanceUID" else of_part)
                layout.labels[row.uid] = named[name]
                labelled |= {part.names["PatientID"]} if part.taken != "left out" else set()
    if len(labelled) < 2:  # fewer than the folds
        layout.labels.clear()
        return
    for part in layout.taken:
        part.split = "train" if any(row.uid in layout.labels for row in part.rows) else "test"
    table = pd.DataFrame([(name, *values) for name, values in named.items()], columns=[column, *SUBTYPES])
    table.sample(frac=1, random_state=0).to_csv(path, index=False)
    layout.table = path
    layout.kinds.append(f"labels by {column}")


def _draw_labels(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(value) for value in rng.random(len(SUBTYPES)) < 0.2)


def _with_any(values: tuple[int, ...]) -> dict[str, int]:
    return dict(zip(SUBTYPES, values, strict=True)) | {"any": max(values)}


def _write_kaggle(layout: Layout, rng: np.random.Generator) -> None:
    """Kaggle's layout: two flat folders and two tables."""
    rows: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
    for number, one in enumerate(layout.drawn):
        split = "train" if number < 2 else "test" if number == 2 else str(rng.choice(["train", "test"]))
        for name, content in enumerate(one.first):
            write(layout.data / f"stage_2_{split}" / f"!{number}-{name}.dcm", content)
        for name, content in zip(rng.permutation(len(one.files)), one.files, strict=True):
            write(layout.data / f"stage_2_{split}" / f"{number}-{name}.dcm", content)
        for part in one.parts:
            part.folder = part.split = split
            for row in part.rows:
                values = _draw_labels(rng)
                if split == "train":
                    layout.labels[row.uid] = values
                elif part.taken == "left out":
                    layout.unseen += 1
                rows[split] += [(f"{row.uid}_{label}", value) for label, value in _with_any(values).items()]
    rows["test"] += [(f"1.2.7_{label}", 0) for label in LABELS]
    layout.unseen += 1
    layout.told.add(Problem.EXPECTED.value[0])
    for split, name in (("train", "train"), ("test", "sample_submission")):
        write(layout.data / f"stage_2_{split}" / "notes.txt", b"no slice")
        pd.DataFrame(rows[split], columns=["ID", "Label"]).to_csv(layout.data / f"stage_2_{name}.csv", index=False)


# ---- to compare ----


def compare(layout: Layout) -> list[str]:
    """Prepare a layout; a line for each difference between what came of it and what is due."""
    work = Work(layout.work)
    options = PrepareOptions(
        data=layout.data,
        work=layout.work,
        image_size=(SIDE,),
        folds=2,
        jobs=1,
        labels=layout.table,
        take=layout.take,
        min_readable=layout.min_readable,
    )
    codes = [_code_of(options) for _ in range(2)]
    wrong = [f"exit codes {codes}, due {layout.exit_code}"] if codes != [layout.exit_code] * 2 else []
    if not work.series_list.is_file():
        return [*wrong, "no cache/series.csv"]
    found = _found_series(work)
    wrong += _differences(found, [_due_series(layout, part) for part in layout.parts])
    wrong += _wrong_problems(layout, pd.read_csv(work.problems, keep_default_na=False))
    if layout.exit_code != 1:
        tables = [pd.read_parquet(work.metadata(split)) for split in {part.split for part in layout.taken}]
        unseen = sum(int(table["series_id"].isna().sum()) for table in tables)
        wrong += [f"{unseen} rows without a slice, due {layout.unseen}"] if unseen != layout.unseen else []
        names = pd.concat(tables)["image_id"]
        wrong += [] if names.is_unique else ["image_id is not unique"]
    stored = {path.stem for path in work.slices(SIDE).glob("*")}
    taken = {row["series_id"] for row in found if row["taken"] != "left out"}
    return wrong + ([f"stores {stored}, due {taken}"] if stored != taken else [])


def _code_of(options: PrepareOptions) -> int:
    try:
        return prepare(options)
    except InputError as error:
        print(f"error: {error}")
        return 1


def _found_series(work: Work) -> list[dict]:
    """The rows of cache/series.csv, each with its slices."""
    rows = pd.read_csv(work.series_list, keep_default_na=False).to_dict("records")
    splits = [split for split in ("train", "test") if work.metadata(split).is_file()]
    table = pd.concat([pd.read_parquet(work.metadata(split)) for split in splits]) if splits else None
    families = Counter(row["part_of"] for row in rows)
    for row in rows:
        row["thickness"] = float(row["thickness"] or "nan")
        row["states"], row["why"] = (set(filter(None, row[name].split("; "))) for name in ("states", "why"))
        row["family"] = families[row["part_of"]]
        row["image"], row["z"], row["name"], row["labels"] = [], [], [], []
        if table is not None and row["taken"] != "left out":
            series = Series(work.series(SIDE, row["series_id"]))
            for item in table[table["series_id"] == row["series_id"]].to_dict("records"):
                row["image"].append("" if item["chunk"] == UNREADABLE else _digest(series.read(item["chunk"])))
                row["z"].append(item["z"])
                row["name"].append(item["image_id"])
                row["labels"].append(tuple(item.get(label, np.nan) for label in LABELS))
    return rows


def _due_series(layout: Layout, part: Part) -> dict:
    """The same of what was drawn."""
    family = [other for other in layout.parts if other.owner == part.owner]
    gaps = np.diff([row.z for row in part.rows])
    gaps = gaps[np.isfinite(gaps)]
    few = {f"fewer than {FEW} slices"} if len(part.rows) < FEW else set()
    due = part.facts | {
        "slices": len(part.rows),
        "plane": part.plane,
        "spacing": float(np.median(gaps)) if len(gaps) else np.nan,
        "states": part.states | few,
        "why": part.why,
        "taken": part.taken,
        "split": part.split,
        "family": len(family),
    }
    is_there = part.taken != "left out" and layout.exit_code != 1
    rows = part.rows if is_there else []
    due["image"] = ["" if row.values is None else _digest(row.values) for row in rows]
    due["z"] = [row.z for row in rows]
    due["name"] = [_name(row) if row.has_own_name else None for row in rows]
    due["labels"] = [_labels(layout, row) for row in rows]
    return due


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, np.int16).tobytes()).hexdigest()[:12]


def _name(row: Row) -> str:
    uid, _, frame = row.uid.partition("_")
    return PSEUDONYMS.hash(uid) + (f"_{frame}" if frame else "")


def _labels(layout: Layout, row: Row) -> tuple[float, ...]:
    values = layout.labels.get(row.uid)
    return (np.nan,) * len(LABELS) if values is None else tuple(float(_with_any(values)[label]) for label in LABELS)


def _differences(found: list[dict], due: list[dict]) -> list[str]:
    """A line for each field in which a series differs from the one that is due; series are matched by their slices."""
    wrong, left = [], list(found)
    for one in sorted(due, key=lambda one: not one["image"]):
        match = max(left, key=lambda other: _likeness(one, other), default=None)
        if match is None:
            wrong.append(f"lacks {_brief(one)}")
            continue
        left.remove(match)
        for name in (*FACTS, "slices", "family", "image", "labels"):
            if not _is_equal(one[name], match[name]):
                wrong.append(f"{name} {match[name]}, due {one[name]}: {_brief(one)}")
        for name in ("spacing", "z"):
            mine, theirs = (
                np.array(numbers if numbers != "" else np.nan, float) for numbers in (one[name], match[name])
            )
            if mine.shape != theirs.shape or not np.allclose(mine, theirs, atol=2e-3, equal_nan=True):
                wrong.append(f"{name} {theirs}, due {mine}: {_brief(one)}")
        if any(mine not in (None, theirs) for mine, theirs in zip(one["name"], match["name"], strict=False)):
            wrong.append(f"names {match['name']}, due {one['name']}")
    return wrong + [f"not due: {_brief(one)}" for one in left]


def _likeness(one: dict, other: dict) -> tuple[int, int]:
    same = len(set(one["image"]) & set(other["image"]) - {""})
    facts = sum(_is_equal(one[name], other[name]) for name in (*FACTS, "slices", "family"))
    return same, facts


def _is_equal(one: object, other: object) -> bool:
    return one == other or (isinstance(one, float | list) and str(one) == str(other))


def _brief(one: dict) -> str:
    return ", ".join(f"{name} {one[name]}" for name in ("slices", "plane", "taken", "why"))


def _wrong_problems(layout: Layout, found: pd.DataFrame) -> list[str]:
    """A line for each difference in the reasons of files, and each problem that is due and not told."""
    reasons, told = layout.reasons.copy(), set(layout.told)
    for one in layout.drawn:
        is_left = one.parts[0].taken == "left out"
        reasons.update({name: n for name, n in one.reasons.items() if not (is_left and name in OF_PIXELS)})
        told |= set() if is_left else one.told
    counts = Counter(found["problem"])
    names = {reason.value for reason in Reason}
    counted = {name: number for name, number in counts.items() if name in names}
    wrong = [f"reasons {counted}, due {dict(+reasons)}"] if counted != dict(+reasons) else []
    unlabelled = sum(
        row.uid not in layout.labels for part in layout.taken if part.split == "train" for row in part.rows
    )
    if counts[Problem.NO_LABEL.value[0]] != unlabelled and layout.exit_code != 1:
        wrong.append(f"{counts[Problem.NO_LABEL.value[0]]} slices without labels, due {unlabelled}")
    copies = sum(one.copies for one in layout.drawn)
    if counts[Problem.COPY.value[0]] != copies:
        wrong.append(f"{counts[Problem.COPY.value[0]]} copies, due {copies}")
    return wrong + [f"not told: {problem}" for problem in sorted(told - set(counts))]
