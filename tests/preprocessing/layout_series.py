"""A series of head CT, or of what is found beside them: several kinds of oddities at once, and what is due of it."""

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
from layout_files import NATIVE, OF_FRAMES, Format, draw_format, due_values, file_of, frames_of
from layout_parts import FEW, NAMES, NARROW, ORDERS, TOLD, TRAITS, Part, Recipe, Slice, draw_part, squared
from test_values import SYNTAXES

from models.preprocessing.problems import Problem
from models.preprocessing.reasons import Reason

NOT_SLICES: dict[str, tuple[dict, Reason]] = {
    "localizer": ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Reason.LOCALIZER),
    "dose sheet": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "ImagePositionPatient": None}, Reason.NOT_CT),
    "other modality": ({"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, Reason.NOT_CT),
    "burned in": ({"BurnedInAnnotation": "YES"}, Reason.PICTURE),
    "screen": ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, Reason.PICTURE),
}
GROUPS = ("patients", "studies", "kernels", "image types", "order", "coronal", "scout", "tilts", "sizes")
COPIES = ("none", "none", "equal", "bad first", "contradicting", "one uid")
UNKNOWN_SYNTAX = b"1.2.840.10008.1.2.9"


@dataclass
class Drawn:
    """The files of a series, and what is due of them."""

    kinds: str  # for a person who reads what has failed
    parts: list[Part] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)
    first: list[bytes] = field(default_factory=list)  # whose names come before all others
    reasons: Counter = field(default_factory=Counter)  # of files that give no slice, or none that can be read
    told: set[str] = field(default_factory=set)  # other problems
    copies: int = 0  # files that are copies of others

    @property
    def patient(self) -> str:
        """Whose it is, or the first of two."""
        return self.parts[0].names["PatientID"]


class Artist:
    """Draws series; all that it draws follows from one generator of random numbers."""

    def __init__(self, rng: np.random.Generator, root: str) -> None:
        """`root` begins all identifiers."""
        self.rng, self.root, self.numbers = rng, root, count(1)

    def uid(self) -> str:
        """Another identifier."""
        return f"{self.root}.{next(self.numbers)}"

    def uids(self, number: int) -> list[str]:
        """So many."""
        return [self.uid() for _ in range(number)]

    def chance(self, share: float) -> bool:
        """True so often."""
        return bool(self.rng.random() < share)

    def pick(self, *options: str) -> str:
        """One of several."""
        return str(self.rng.choice(options))

    def draw_series(self, plain: bool = False, left: bool = False, own_names: bool = False) -> Drawn:
        """A series of any kinds; one that is `plain` is taken, one that is `left` is not.

        With `own_names` no image's identifier is another's, too.
        """
        if not (plain or left) and self.chance(0.12):
            return self._draw_frames()
        grouped = not (plain or left) and self.chance(0.45)
        group = self.pick(*GROUPS) if grouped else "one"
        recipe = self._draw_recipe(plain, left, group)
        copies = COPIES[:4] if grouped or own_names else COPIES
        copy = self.pick(*(name for name in copies if name != "contradicting" or recipe.in_place))
        slices, part = draw_part(self.rng, recipe, self.uids(recipe.number))
        drawn = Drawn(f"{group}, {copy}, {recipe}", [part])
        slices += self._draw_other(group, recipe, drawn)
        drawn.told |= {TOLD[recipe.order].value[0]} if recipe.order in TOLD else set()
        drawn.told |= {Problem.TURNED.value[0]} if any(recipe.turn) else set()
        self._write(slices, recipe, copy, drawn)
        return drawn

    # ---- recipes ----

    def _draw_recipe(self, plain: bool, left: bool, group: str) -> Recipe:
        names = dict(zip(NAMES, self.uids(3), strict=True))
        form = draw_format(self.rng)
        if group == "one" and not plain and self.chance(0.1):
            form = replace(form, kind="bare", bits=16, intercept=0.0, slope=1.0)
        recipe = Recipe(names, form, self._draw_traits(plain, left, group), gap=float(self.pick("1.25", "2.5", "5")))
        if group == "kernels":
            recipe = replace(recipe, elements={"ConvolutionKernel": "STANDARD"}, facts={"kernel": "soft"})
        if group == "image types":
            recipe = replace(recipe, elements={"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]})
        plane = "axial" if plain or group != "one" or self.chance(0.75) else self.pick("coronal", "sagittal")
        order = self.pick(*ORDERS) if group == "one" and plane == "axial" else "positions"
        number = (
            int(self.rng.integers(4, FEW)) if group == "one" and self.chance(0.2) else int(self.rng.integers(8, 11))
        )
        recipe = replace(recipe, plane=plane, order=order, number=number, numbers=self._draw_numbers(order, number))
        if plane == "axial" and order != "no orientation":
            turn = tuple(bool(flag) for flag in self.rng.integers(0, 2, 3)) if self.chance(0.5) else recipe.turn
            recipe = replace(recipe, turn=turn, tilt=float(self.rng.integers(5, 25)) if self.chance(0.25) else 0.0)
        if order in ("location", "number"):  # made from other images and without a place: a picture, not a slice
            recipe = replace(recipe, traits=tuple(name for name in recipe.traits if name != "secondary"))
        if order.startswith("nan"):
            lost = self.rng.permutation(number)[: number // 3]
            recipe = replace(recipe, lost=frozenset(map(int, lost)))
        spacing = (0.5, 0.7) if self.chance(0.2) else (0.5, 0.5)
        return replace(recipe, spacing=spacing, has_location=order not in ("positions", "uneven") or self.chance(0.5))

    def _draw_numbers(self, order: str, number: int) -> range:
        if order in ("number", "nan by number", "duplicates") or self.chance(0.5):
            return range(1, 2 * number + 1, 2)
        return range(2 * number, 0, -2) if self.chance(0.7) else range(0)

    def _draw_traits(self, plain: bool, left: bool, group: str) -> tuple[str, ...]:
        possible = [name for name, (_, why, *_) in TRAITS.items() if not (plain and why)]
        possible = [name for name in possible if group != "kernels" or "kernel" not in name]
        possible = [name for name in possible if group != "image types" or name != "secondary"]
        traits = {str(name) for name in self.rng.permutation(possible)[: self.rng.integers(0, 4)]}
        if left:
            traits.add(self.pick("chest", "secondary"))
        for one, other in (("chest", "head"), ("bone kernel", "soft kernel"), ("contrast", "no contrast")):
            traits -= {other} if one in traits else set()
        return tuple(sorted(traits))

    # ---- what else has the same SeriesInstanceUID ----

    def _draw_other(self, group: str, recipe: Recipe, drawn: Drawn) -> list[Slice]:
        """The slices of another part, or of somebody else's series; also changes what is due of the first."""
        if group == "one":
            return []
        numbers = range(2 * recipe.number + 1, 10 * recipe.number, 2)
        changes: dict = {
            "patients": {"names": recipe.names | {"PatientID": self.uid()}},
            "studies": {"names": recipe.names | {"StudyInstanceUID": self.uid()}},
            "kernels": {"elements": {"ConvolutionKernel": "BONE"}, "facts": {"kernel": "bone"}},
            "image types": {"elements": {"ImageType": ["ORIGINAL", "PRIMARY", "OTHER"]}},
            "order": {"numbers": numbers},
            "coronal": {"plane": "coronal", "number": 5, "tilt": 0.0, "turn": (False,) * 3},
            "scout": {"plane": "coronal", "number": 2, "tilt": 0.0, "turn": (False,) * 3},
            "tilts": {"tilt": recipe.tilt + 10, "number": 5},
            "sizes": {"columns": NARROW, "number": 5, "height": 60.0},
        }[group]
        if group in ("coronal", "scout", "tilts", "sizes") and recipe.numbers:
            changes["numbers"] = numbers
        other = replace(recipe, **changes)
        slices, part = draw_part(self.rng, other, self.uids(other.number))
        drawn.parts.append(part)
        if group not in ("patients", "studies"):
            drawn.told.add(Problem.PARTS.value[0])
        return slices

    # ---- files ----

    def _write(self, slices: list[Slice], recipe: Recipe, copy: str, drawn: Drawn) -> None:
        """Write the files: copies of some, damage to others."""
        if copy == "one uid":
            slices = [item._replace(elements=item.elements | {"SOPInstanceUID": self.root}) for item in slices]
            _shared(drawn)
        chosen = [int(place) for place in self.rng.permutation(len(slices))[:3]]
        if recipe.form.kind in ("plain", "padding", "overlay", "wrapped") and self.chance(0.25):
            forms = [replace(recipe.form, syntax=self.pick(*SYNTAXES), beginning="whole") for _ in slices]
            slices = [item._replace(form=form) for item, form in zip(slices, forms, strict=True)]
            drawn.kinds += ", several transfer syntaxes"
        contents = [file_of(item.stored, item.form, item.elements) for item in slices]
        if copy == "equal":
            drawn.files += [contents[place] for place in chosen[:2]]
            drawn.copies = 2
        elif copy == "bad first":
            drawn.first.append(self._damaged(slices[chosen[0]], contents[chosen[0]], drawn))
        elif copy == "contradicting":
            drawn.files.append(self._contradiction(slices[chosen[0]], drawn))
        has_places = recipe.order not in ("location", "number", "one position") and not recipe.lost
        if self.chance(0.3) and (copy != "one uid" or has_places):
            item = slices[chosen[2]]
            contents[chosen[2]] = self._damaged(item, contents[chosen[2]], drawn)
            _lose(drawn, item.row.uid)
        drawn.files += contents

    def _damaged(self, item: Slice, content: bytes, drawn: Drawn) -> bytes:
        """The file of a slice whose header can be read, and not its pixels; notes the reason."""
        syntax = item.form.syntax
        if syntax in NATIVE:
            if syntax == "deflated":
                item = item._replace(form=replace(item.form, syntax="explicit", beginning="whole"))
                content = file_of(item.stored, item.form, item.elements)
            drawn.reasons[Reason.TRUNCATED.value] += 1
            return content[:-60]
        if syntax == "RLE" and self.chance(0.5):
            drawn.reasons[Reason.COMPRESSION.value] += 1
            return content.replace(SYNTAXES["RLE"].encode(), UNKNOWN_SYNTAX)
        drawn.reasons[Reason.DECODING.value] += 1
        return file_of(item.stored, item.form, item.elements, torn=True)

    def _contradiction(self, item: Slice, drawn: Drawn) -> bytes:
        """A file of the same image and place with other values; it is due next to the first, both under new names."""
        upright, stored = (_other_values(values, item.form) for values in (item.upright, item.stored))
        (part,) = drawn.parts
        place = [row.uid for row in part.rows].index(item.row.uid)
        row = item.row._replace(values=squared(due_values(upright, item.form)), has_own_name=False)
        part.rows[place : place + 1] = [item.row._replace(has_own_name=False), row]
        drawn.told |= {Problem.SHARED_NAME.value[0], Problem.DUPLICATE_POSITIONS.value[0]}
        next_number = {"InstanceNumber": item.elements["InstanceNumber"] + 1}
        return file_of(stored, item.form, item.elements | next_number)

    def _draw_frames(self) -> Drawn:
        """An enhanced CT file: its frames in any order, each with a rescale of its own."""
        names = dict(zip(NAMES, self.uids(3), strict=True))
        form = replace(draw_format(self.rng, OF_FRAMES), bits=16, signed=True, kind="plain", beginning="whole")
        traits = self._draw_traits(plain=True, left=False, group="frames")
        recipe = Recipe(names, form, traits, number=int(self.rng.integers(8, 11)), turn=(False, True, False))
        slices, part = draw_part(self.rng, recipe, self.uids(recipe.number))
        order, image = [int(place) for place in self.rng.permutation(len(slices))], self.uid()
        forms = [
            replace(form, intercept=float(self.pick("-1024", "-500", "0")), slope=float(self.pick("1", "0.5")))
            for _ in slices
        ]
        for number, place in enumerate(order, 1):
            values = squared(due_values(slices[place].upright, forms[place]))
            part.rows[place] = part.rows[place]._replace(values=values, uid=f"{image}_{number:04d}")
        of_frames = [slices[place].elements for place in order]
        placing = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
        of_all = {name: value for name, value in of_frames[0].items() if name not in placing}
        of_all |= {"SOPInstanceUID": image, "InstanceNumber": None, "SliceLocation": None}
        stored = np.stack([slices[place].stored for place in order])
        content = frames_of(stored, [forms[place] for place in order], of_all, of_frames)
        return Drawn(f"frames, {recipe}", [part], [content])

    def add_stray(self, drawn: Drawn) -> None:
        """Add a file that is no slice, of the same series or of another."""
        kind = self.pick(*NOT_SLICES)
        elements, reason = NOT_SLICES[kind]
        names = drawn.parts[0].names
        if self.chance(0.5):
            names = names | {"SeriesInstanceUID": self.uid()}
        form = draw_format(self.rng, ("explicit", "implicit"))
        recipe = Recipe(names, replace(form, kind="plain", beginning="whole"), number=3, elements=elements)
        slices, _ = draw_part(self.rng, recipe, self.uids(3))
        drawn.files.append(file_of(slices[0].stored, slices[0].form, slices[0].elements))
        drawn.reasons[reason.value] += 1
        drawn.kinds += f", {kind}"


def _shared(drawn: Drawn) -> None:
    """Note that all slices have one identifier, so that each gets a name of its own."""
    for part in drawn.parts:
        part.rows = [row._replace(has_own_name=False) for row in part.rows]
    drawn.told.add(Problem.SHARED_NAME.value[0])


def _lose(drawn: Drawn, lost: str) -> None:
    """Note that a slice cannot be read."""
    for part in drawn.parts:
        part.rows = [row._replace(values=None) if row.uid == lost else row for row in part.rows]


def _other_values(stored: np.ndarray, form: Format) -> np.ndarray:
    """The values but one as they are, the one changed where no padding stands."""
    is_padding = (stored == form.padding) if form.kind == "padding" else np.zeros(stored.shape, bool)
    return np.where(is_padding, stored, stored ^ 1)
