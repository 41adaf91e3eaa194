"""Laws of the intake as a whole: whatever lies together in a folder, values, order, the series table and exit code."""

import contextlib
import io
from collections import Counter

import pytest
from layouts import compare, draw_layout

SOME, ALL = (0, 3, 4, 11, 22, 28, 55, 97, 98), range(100)  # seeds; a few that hold every kind of folder and exit code


@pytest.mark.parametrize("seed", SOME)
def test_what_comes_of_a_folder_is_what_was_drawn(seed, tmp_path):
    layout = draw_layout(seed, tmp_path)
    assert compare(layout) == [], layout.kinds


@pytest.mark.torture
def test_what_comes_of_a_hundred_folders_is_what_was_drawn(tmp_path):
    wrong, kinds, codes = {}, Counter(), Counter()
    for seed in ALL:
        layout = draw_layout(seed, tmp_path / str(seed))
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found = compare(layout)
        if found:
            wrong[seed] = (layout.kinds, found)
        codes[layout.exit_code] += 1
        kinds.update({kind.split(" by ")[0] for kind in layout.kinds[1:]})
    print(f"{len(ALL) - len(wrong)} of {len(ALL)} layouts; exit codes {dict(codes)}; {dict(kinds)}")
    assert not wrong
