"""Files that claim to be the same slice: which are copies, and which are slices of their own."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable

from models.preprocessing.problems import Problem, ProblemRows, problem_rows
from models.preprocessing.pseudonyms import Pseudonyms, is_of_challenge
from models.preprocessing.slices import Prepared, frame_suffix


def without_copies(
    slices: Iterable[Prepared], shared: Collection[str], pseudonyms: Pseudonyms
) -> tuple[list[Prepared], ProblemRows]:
    """Each slice once: of several copies one that can be read, and the problems of the others.

    A copy has the SOPInstanceUID, the position and the values of another file. What shares the identifier alone, as
    anonymisers leave it, in this series or with others (`shared`), gets a name of its own; among the challenge's files,
    whose labels know one, the first stays.
    """
    named = defaultdict(list)
    for item in slices:
        named[item.row["image_id"]].append(item)
    kept, problems = [], []
    for name, sharing in named.items():
        different, copies = _tell_apart(sharing) if len(sharing) > 1 else (sharing, [])
        problems += problem_rows(Problem.COPY, [item.file.name.strip() for item in copies])
        if len(different) > 1 and is_of_challenge(sharing[0].file.names.image_id):
            problems += problem_rows(Problem.REPEATED_IMAGE, [item.file.name.strip() for item in different[1:]])
            different = different[:1]
        elif len(different) > 1 or sharing[0].file.names.image_id in shared:
            problems += problem_rows(Problem.SHARED_NAME, [name])
            different = [_renamed(item, pseudonyms) for item in different]
        kept += different
    return kept, problems


def _tell_apart(sharing: list[Prepared]) -> tuple[list[Prepared], list[Prepared]]:
    """Of files that share an identifier those that are different slices, readable ones first, and the equal copies."""
    different, copies = {}, []
    for item in sharing:
        if item.row["readable"]:
            key = _position(item), item.checksum
            if key in different:
                copies.append(item)
            different.setdefault(key, item)
    places = {_place(item) for item in different.values()}
    for item in sharing:
        place = _place(item)
        if not item.row["readable"] and (not different or (place is not None and place not in places)):
            different[place, None] = item
            places.add(place)
    return list(different.values()), copies


def _place(item: Prepared) -> tuple[float, ...] | None:
    """Where a slice lies, and its number: what shares both may be a copy; None where nobody knows the place."""
    position, number = _position(item), item.row.get("instance_number", math.nan)
    return None if position is None else (*position, -1.0 if math.isnan(number) else number)


def _position(item: Prepared) -> tuple[float, ...] | None:
    position = tuple(item.row.get(f"image_position_{i}", math.nan) for i in range(3))
    return None if any(map(math.isnan, position)) else position


def _renamed(item: Prepared, pseudonyms: Pseudonyms) -> Prepared:
    name = pseudonyms.of_file(item.file.names.image_id, item.file.name) + frame_suffix(item.row)
    return item._replace(row=item.row | {"image_id": name})
