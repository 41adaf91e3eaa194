"""The look of every picture: colours that people tell apart who see no red or green, and dashes that print tells apart.

The colours are those of M. Okabe and K. Ito (Color Universal Design, 2008).
"""

BLUE, ORANGE, GREEN, VERMILION, PINK, BLACK = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#000000"
GREY = "#8a8f98"  # axes, and what is there for comparison
LABEL_COLOURS = (ORANGE, BLUE, GREEN, PINK, VERMILION, BLACK)  # in the order of the labels
LABEL_DASHES = ("-", "--", "-.", ":", (0, (5, 1)), "-")
