"""Face and skull base of the synthetic studies: bones, muscles and air spaces, in the coordinates of anatomy.py."""

import numpy as np

from models.phantom.anatomy import AIR, FAT, MUSCLE, SKIN, Head
from models.phantom.points import ROUNDING, Points, capsule, texture

MASTOID = np.array([57, -29, -44])  # centre of the left mastoid, mm

# Structures of the face and the skull base in paint order: start and end of a tapered capsule on the left side
# (mirrored to the right), its radius at both ends (mm) and its Hounsfield value.
FACE = (
    ((60, 32, -48), (56, 38, -90), 10, 9, MUSCLE),  # masseter
    ((38, 24, -46), (36, 30, -85), 11, 9, MUSCLE),  # pterygoids
    ((20, -46, -60), (22, -50, -95), 15, 17, MUSCLE),  # neck
    ((50, -40, -66), (46, -34, -95), 9, 11, MUSCLE),  # sternocleidomastoid
    ((15, 4, -52), (14, 6, -90), 7, 8, MUSCLE),  # longus
    ((29, 58, -18), (13, 22, -14), 17, 9, 750),  # orbital walls
    ((31, 68, -18), (13, 24, -14), 15, 5, FAT),  # orbital cone
    ((32, 68, -18), (32, 68, -18), 12.5, 12.5, 42),  # sclera
    ((32, 68, -18), (32, 68, -18), 10.8, 10.8, 13),  # vitreous body
    ((30.5, 77, -18), (33.5, 77, -18), 2.4, 2.4, 75),  # lens
    ((32, 56, -18), (13, 26, -14), 2.3, 2.3, 35),  # optic nerve
    ((43, 62, -18), (17, 28, -14), 2.2, 2.2, MUSCLE),  # lateral rectus
    ((21, 62, -18), (12, 28, -14), 2.2, 2.2, MUSCLE),  # medial rectus
    ((47, 72, -34), (56, 60, -34), 7, 5, 900),  # zygoma
    ((57, 60, -34), (68, 18, -37), 3, 3, 900),  # zygomatic arch
    ((68, 18, -37), (64, -4, -38), 3, 4, 900),
    ((48, 66, -12), (40, 36, -14), 4, 4, 900),  # lateral orbital wall
    ((40, 36, -12), (58, 22, -8), 5, 4, 1000),  # greater wing
    ((30, 62, -47), (28, 40, -48), 16, 13, 700),  # maxilla
    ((30, 62, -47), (28, 40, -48), 14.2, 11.2, AIR),  # maxillary sinus
    ((14, 80, -22), (10, 84, -40), 5, 3, 800),  # nasal bone and frontal process
    ((8, 72, -18), (8, 26, -18), 8.5, 8.5, 600),  # ethmoid
    ((7.5, 72, -18), (7.5, 26, -18), 7, 7, AIR),
    ((7, 86, -42), (7, 30, -40), 6, 6, AIR),  # nasal cavity
    ((9, 22, -50), (9, 36, -72), 5, 5, 800),  # pterygoid plates
    ((0, 13, -52), (0, 8, -95), 10, 10, AIR),  # pharynx
    ((7, 15, -22), (6, 10, -24), 12, 11, 900),  # sphenoid
    ((7, 16, -23), (6, 11, -25), 8.5, 8, AIR),  # sphenoid sinus
    ((0, 4, -24), (0, -13, -50), 8, 6, 950),  # clivus
    ((53, 5, -38), (50, 14, -90), 6, 5, 1000),  # jaw
    ((16, -3, -29), (56, -22, -32), 8, 13, 1250),  # petrous bone
    ((57, -29, -40), (55, -25, -60), 14, 8, 900),  # mastoid
    ((64, -13, -37), (86, -13, -37), 3.2, 3.2, AIR),  # ear canal
)
# Above them all (mm) there is nothing of the face.
TOP = max(max(start[2] + radius, end[2] + end_radius) for start, end, radius, end_radius, _ in FACE) + ROUNDING


def paint_face(head: Head, p: Points, hu: np.ndarray) -> None:
    """Paint bones, muscles and air spaces of the face and the skull base over `hu` (n,), in place."""
    low = np.flatnonzero(p.z < TOP)
    if not low.size:
        return
    scaled = p.take(low).mirrored()
    values = hu[low]
    inside = values > AIR
    paint_structures(scaled, inside, values)
    ethmoid = (scaled.x < 15) & (np.abs(scaled.y - 49) < 32) & (np.abs(scaled.z + 18) < 9)
    cells = np.flatnonzero(ethmoid & (values == AIR))
    values[cells[np.abs(texture(head.offset, p.take(low[cells]), 1.1)) < 0.22]] = 350
    septum = inside & (scaled.x < 0.9) & (np.abs(scaled.y - 55) < 34) & (np.abs(scaled.z + 32) < 24)
    values[septum] = 250
    mastoid = np.flatnonzero(scaled.distance2(MASTOID, (12, 13, 14)) < 1)
    values[mastoid[texture(head.offset, p.take(low[mastoid]), 1.1) > 0.1]] = -800  # air cells
    values[scaled.distance2((79, -17, -34), (5, 11, 17)) < 1] = SKIN  # ear
    ring = np.sqrt(np.square(scaled.x / 1.15) + np.square(scaled.y + 33))
    atlas = (np.abs(ring - 20) < 5) & (np.abs(scaled.z + 64) < 9)
    values[atlas & (scaled.y < -12)] = 900
    canal = (ring < 14) & (scaled.z < -44) & (scaled.y < -16)
    values[canal] = head.csf
    values[canal & (ring < 6.5)] = head.white + 2
    values[capsule(scaled, (0, -9, -58), (0, -10, -95), 6, 8)] = 900  # dens
    hu[low] = values


def paint_structures(p: Points, inside: np.ndarray, hu: np.ndarray) -> None:
    """Paint what stands in FACE over `hu` (n,), in place, where a mask (n,) is true."""
    # From back to front, so that a structure lies in one short stretch of them.
    order = np.flatnonzero(inside)
    order = order[np.argsort(p.y[order])]
    ordered, values = p.take(order), hu[order]
    for start, end, radius, end_radius, value in FACE:
        if not p.reach(start, end, max(radius, end_radius)):
            continue
        reach = max(radius, end_radius) + ROUNDING
        first, last = np.searchsorted(ordered.y, (min(start[1], end[1]) - reach, max(start[1], end[1]) + reach))
        stretch = slice(first, last)
        values[stretch][capsule(ordered.take(stretch), start, end, radius, end_radius)] = value
    hu[order] = values
