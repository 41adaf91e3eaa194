"""What differs from study to study and must not matter: the range of each, and why it is so wide.

A network learns to look past what varies more in drawings than it does in people (SynthSeg: Billot et al., Medical
Image Analysis 2023, 10.1016/j.media.2023.102789). Every dial is drawn once a study, evenly between its ends.
"""

from typing import NamedTuple

import numpy as np


class Dial(NamedTuple):
    """The two ends of a range."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        """A value of one study."""
        return float(rng.uniform(self.low, self.high))


# The patient. Lengths in mm, densities in Hounsfield units.
SCALE = Dial(0.94, 1.06)  # of the whole head; its other lengths are those without it
HALF_WIDTH = Dial(64, 76)  # of the skull; adults have 65 to 77
HALF_LENGTH = Dial(78, 92)  # with these widths, cephalic indices of 70 to 97; anthropometry has 70 to 92 over all
TOP = Dial(83, 97)  # of the vertex over the orbital roof, bone included; 45 mm below that lies the foramen magnum
DOME = Dial(0.05, 0.45)  # how much more pointed the vertex is than an ellipsoid
EGG = Dial(0.08, 0.26)  # narrower in front: long skulls and round ones
LONG_WARP = Dial(1.0, 4.0)  # deformation over 70 mm: people differ by 3 to 5 mm after scaling
SHORT_WARP = Dial(0.3, 1.6)  # over 25 mm, so that no gyrus is where the template has it
BONE = Dial(3.2, 8.0)  # thickness of the vault; 4 to 8 in adults, more with hyperostosis
SCALP = Dial(3.5, 9.0)
CORTICAL = Dial(1000, 1650)  # compact bone; osteoporosis at one end
FAT = Dial(-105, -65)
WHITE = Dial(21.0, 31.0)  # 20 to 32 in textbooks
CONTRAST = Dial(4.0, 12.0)  # grey over white; oedema and low energies end at both sides
FLUID = Dial(1.0, 13.0)  # cerebrospinal fluid, 0 to 12
FALX = Dial(40, 62)
SINUS = Dial(40, 70)  # blood in veins: anaemia 40, dehydration 70, where it looks like a thrombus
SULCUS = Dial(0.4, 3.4)  # width, mm; that of the young, and of the old with atrophy
# The scanner.
NOISE = Dial(1.2, 3.8)  # HU at 512 x 512 and 5 mm, before 1.25 in the middle and more by bone: of many doses
KERNEL = Dial(0.3, 0.85)  # mm: sharp and soft reconstructions
GRAIN = Dial(0.36, 0.54)  # mm by which noise is smooth; soft kernels leave .45, with nothing above .75 of Nyquist
CALIBRATION = Dial(-7, 7)  # HU by which scanners differ in soft tissue; what the tests of the ACR allow
GLOW = Dial(0.0, 0.06)  # share of the bone around that beam hardening adds; projections give .07 uncorrected
EDGE = Dial(30, 170)  # HU of bone that reaches into the brain over half a millimetre: sharp kernels and soft ones
SHADE = Dial(-4, 4)  # HU by which one side of the head reads higher than the other
# Its projections (projections.py), in the studies and slices that have them.
PROJECTED = 0.12  # of the studies; they cost more, and the others have what was fitted to these
HARDENING = Dial(0.1, 0.7)  # share of it that is left: newer scanners correct for bone, older ones for water alone
SCATTER = Dial(0.0, 0.03)  # of what comes through a head, as grids leave it; behind the petrous bones it is a tenth
MOVING = 0.06  # of the studies
CLIPS, DENTAL = 0.05, 0.3  # of the studies; few reach down to the teeth
