"""What README.md and docs/ say is so, and files that anything in the repository names are there."""

import ast
import importlib
import io
import json
import re
import tokenize
from pathlib import Path

import nbformat
import pytest
from pages import PAGES, REPOSITORY, blocks

from models import plan, train_lite0
from models.common.config import TrainConfig
from models.inference.evidence import WAYS
from models.phantom.layouts import LAYOUTS
from models.phantom.traps import TRAPS
from models.preprocessing.elements import Reason
from models.preprocessing.problems import Problem

PRESETS = re.findall(r"^\| `models/(train_\w+)\.py` \|(.*)\|$", PAGES["training.md"], flags=re.MULTILINE)
CODE = [
    REPOSITORY / "radam.py",
    *(path for room in ("models", "benchmarks", "tests") for path in (REPOSITORY / room).rglob("*.py")),
]
NOTEBOOKS = sorted(REPOSITORY.glob("*.ipynb"))
FILES = {path.name for room in ("models", "benchmarks", "tests", "docs") for path in (REPOSITORY / room).rglob("*.*")}
FILES |= {path.name for path in REPOSITORY.glob("*.*")}
NAMED = re.compile(r"(?<![\w.<>*/-])(?:[\w.<>*-]+/)*[\w<>*-]+\.(?:py|ipynb|md)\b")
WRITTEN = {"card.md"}  # of a release
TARGETS = re.compile(r"(?:^|^ {4}|`|# |=\S+ )make ([a-z]+(?:-[a-z]+)*)", flags=re.MULTILINE)
PICTURES = re.compile(r"\bdocs/[\w./-]+\.png")
MEASURED = r"^`[^`]+`: [^`]*\b20\d\d-\d\d-\d\d,\s+commit `[0-9a-f]{7}`"


def test_the_readme_is_one_page():
    assert len(PAGES["README.md"].splitlines()) <= 150


def test_the_readme_leads_to_every_page():
    for page in set(PAGES) - {"README.md"}:
        assert f"(docs/{page})" in PAGES["README.md"], page


def exists(name: str) -> bool:
    """Whether it is a file of the repository: by its path from there or from models/, or by its name alone.

    A part in angle brackets, or a star, stands for any: train_<name>.py. What is in runs/, or WRITTEN, is not kept.
    """
    pattern = re.sub(r"<\w+>", "*", name)
    if name.startswith("runs/") or name in WRITTEN:
        return True
    if "/" in pattern:
        return any(any(root.glob(pattern)) for root in (REPOSITORY, REPOSITORY / "models"))
    return any(Path(file).match(pattern) for file in FILES)


def missing(text: str) -> list[str]:
    return [name for name in (*NAMED.findall(text), *PICTURES.findall(text)) if not exists(name)]


@pytest.mark.parametrize(
    ("text", "lacking"),
    [
        ("see models/prepare.py, preprocessing/elements.py, radam.py and train_<name>.py", []),
        ("see models/preprare.py, phantom.py and docs/none.png", ["models/preprare.py", "phantom.py", "docs/none.png"]),
        ("phantom_traps_*.py, tests/elements.py; history.png is written", ["phantom_traps_*.py", "tests/elements.py"]),
    ],
)
def test_a_file_that_is_not_there_is_found(text, lacking):
    assert missing(text) == lacking


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page):
    links = re.sub(r"\]\([^)]*\)", "]", PAGES[page])  # their targets are another test's
    assert missing(links) == []


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_file_that_a_docstring_or_a_comment_names_is_there(path):
    assert missing(words_about(path.read_text())) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_file_that_a_notebook_names_is_there(path):
    cells = nbformat.read(path, as_version=4).cells
    assert (
        missing("\n".join(words_about(cell.source) if cell.cell_type == "code" else cell.source for cell in cells))
        == []
    )


def words_about(source: str) -> str:
    """The docstrings and comments of Python code; a text that stands by itself documents what is above it."""
    texts = [node.value.value for node in ast.walk(ast.parse(source)) if is_text(node)]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return "\n".join([*texts, *(token.string for token in tokens if token.type == tokenize.COMMENT)])


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def anchors(page: str) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", PAGES[page], flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_inside_the_repository_leads_somewhere(page):
    folder = REPOSITORY if page == "README.md" else REPOSITORY / "docs"
    for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        if not link.startswith("https://"):
            target, _, anchor = link.partition("#")
            path = (folder / target).resolve() if target else folder / page
            assert path.exists(), link
            assert path.is_relative_to(REPOSITORY), link
            assert not anchor or anchor in anchors(path.name), link


def test_every_make_target_that_is_named_exists():
    makefile = (REPOSITORY / "Makefile").read_text()
    texts = [*PAGES.values(), *(words_about(path.read_text()) for path in CODE)]
    targets = {name for text in texts for name in TARGETS.findall(text)}
    assert {"demo", "test", "bench", "torture", "picture", "help"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_training_script_that_looks_at_images_is_in_the_table_of_presets():
    scripts = {path.stem for path in (REPOSITORY / "models").glob("train_*.py")}
    of_images = {name for name in scripts if isinstance(configuration(name), TrainConfig)}
    assert scripts - of_images == {"train_sequence", "train_session_sequence"}
    assert {name for name, _ in PRESETS} == of_images


def configuration(script):
    return importlib.import_module(f"models.{script}").CONFIG


@pytest.mark.parametrize(("script", "row"), PRESETS)
def test_table_of_presets_is_what_the_scripts_declare(script, row):
    config = configuration(script)
    expected = [
        config.network,
        config.image_size,
        config.crop_size or "no",
        " ".join(str(channel) for channel in config.channels),
        config.optimizer,
        f"{config.max_lr:g}",
        config.epochs,
        config.batch_size,
    ]
    assert [cell.strip() for cell in row.split("|")] == [str(value) for value in expected]


def test_low_information_slices_are_left_out_where_it_says_so():
    keep = {script for script, _ in PRESETS if not configuration(script).skip_low_information}
    assert keep == {
        "train_small",
        "train_lite0",
        "train_b2",
        "train_b2_triplet",
        "train_b2_context",
        "train_b0_recurrent",
        "train_study",
    }


def test_the_page_of_the_data_names_every_problem():
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", PAGES["data.md"], flags=re.MULTILINE)
    assert [row for row in rows if row[0] not in ("problem", "---")] == [problem.value for problem in Problem]
    quoted = " ".join(re.findall(r"^> (.*)$", PAGES["data.md"], flags=re.MULTILINE))
    assert quoted.split(" · ") == [reason.value for reason in Reason]


def test_the_page_of_the_phantom_names_every_layout_and_trap():
    rows = re.findall(r"^\| `(\w+)` \|", PAGES["phantom.md"], flags=re.MULTILINE)
    assert rows == [*LAYOUTS, *TRAPS]


def sections(page: str) -> dict[str, str]:
    """The text below each heading of the second level."""
    parts = re.split(r"^## (.*)\n", PAGES[page], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_figure_has_its_command_hardware_date_and_commit():
    assert len(sections("results.md")) > 5
    for title, text in [*sections("results.md").items(), ("robustness", PAGES["robustness.md"])]:
        assert re.search(MEASURED, text, flags=re.MULTILINE), title


def written(name: str) -> dict:
    return json.loads((REPOSITORY / "benchmarks" / f"{name}.json").read_text())


@pytest.mark.parametrize(
    ("name", "title"),
    [("context", "What neighbouring slices are worth"), ("blending", "What blends and pseudolabels are worth")],
)
def test_results_of_the_experiments_are_those_that_they_have_written(name, title):
    text, expected = sections("results.md")[title], written(name)
    rows = re.findall(r"\| (0\.\d{4}) \| (0\.\d{4}) \|(?:$| )", text, flags=re.MULTILINE)
    assert sorted(rows) == sorted((f"{row['mean']:.4f}", f"{row['spread']:.4f}") for row in expected["rows"].values())
    assert f"commit `{expected['commit'][:7]}`" in text


def test_forms_of_context_stand_beside_the_best_with_the_intervals_that_were_written():
    text = sections("results.md")["What neighbouring slices are worth"]
    told = re.findall(r"^\|.* \| (0\.\d{4}) \| \S+ \| (\S+) \[(\S+), (\S+)\] \|$", text, flags=re.MULTILINE)
    beside = [row for row in written("context")["rows"].values() if "low" in row]
    due = [tuple(f"{row[name]:.4f}" for name in ("mean", "worse by", "low", "high")) for row in beside]
    assert len(due) == 9
    assert sorted(told) == sorted(due)


def test_results_on_people_are_those_that_were_written():
    text, expected = sections("results.md")["What a start from drawings is worth on people"], written("real_studies")
    told = re.findall(r"^\|.* \| (0\.\d{4}) \| (0\.\d{4}) \| (0\.\d{3}) \| (.*) \|$", text, flags=re.MULTILINE)
    due = []
    for row in expected["rows"].values():
        beside = f"{row['worse by']:.4f} [{row['low']:.4f}, {row['high']:.4f}]" if "low" in row else "\N{EN DASH}"
        due.append((f"{row['mean']:.4f}", f"{row['spread']:.4f}", f"{row['AUC of any']:.3f}", beside))
    assert told == due
    assert f"commit `{expected['commit'][:7]}`" in text
    as_it_is, preset = (expected["rows"][row]["mean"] for row in ("as_it_is", "preset"))
    of_readme = f"| {as_it_is:.4f} | {preset:.4f}: trained on the other six, from ImageNet's weights"
    assert of_readme in (REPOSITORY / "README.md").read_text()


def test_results_of_the_choice_are_those_that_were_written():
    text, expected = sections("results.md")["Is the chosen way ever worse than one way for all?"], written("choosing")
    rows = re.findall(r"^\| \d.* \| (\S+) \| (\S+) \| (\d+) of (\d+) \| (\S+) \|$", text, flags=re.MULTILINE)
    assert len(rows) == len(expected["rows"])
    for told, row in zip(rows, expected["rows"].values(), strict=True):
        best = min(row[way] for way in WAYS)
        numbers = [f"{number:.4f}" for number in (best, row["by_label"])]
        of_seeds = [str(row["beyond the interval"]), str(expected["settings"]["seeds"])]
        assert list(told) == [*numbers, *of_seeds, f"{row['calibration error']:.4f}"]
    assert f"commit `{expected['commit'][:7]}`" in text


def test_results_at_the_challenges_size_are_those_that_were_written():
    text, expected = sections("results.md")["The last steps at the challenge's size"], written("full_size")
    rows = re.findall(r"\| (\S+) \| (\S+) GiB \|$", text, flags=re.MULTILINE)
    assert rows == [(str(row["s CPU"]), str(row["GiB"])) for row in expected["rows"].values()]
    assert f"{expected['settings']['slices']:,} slices" in text
    assert f"commit `{expected['commit'][:7]}`" in text


def test_a_start_from_drawings_is_advised_as_it_was_measured():
    """At a tenth of the preset's rate, and as no gain where the interval holds none."""
    text = " ".join(sections("phantom.md")["A network that has learnt from drawings"].split())
    (advised,) = re.findall(r"`(python models/train_lite0.py [^`]*)`", text)
    assert float(re.search(r" --max-lr (\S+)", advised)[1]) == pytest.approx(train_lite0.CONFIG.max_lr / 10)
    low, high = (written("real_studies")["rows"]["gently"][end] for end in ("low", "high"))
    assert ("is not beyond its interval" in text) == (low <= 0 <= high)


def test_results_beside_peers_are_those_that_were_written():
    text, expected = sections("results.md")["Beside its peers"], written("results")
    for row in expected["rows"]:
        digits = 0 if row["unit"] == "slices/s" else 1 if row["ours"] > 100 else 2
        assert f"{row['ours']:.{digits}f} " in text, row
        assert f"{row['peer']:.{digits}f} " in text, row
    assert f"commit `{expected['commit'][:7]}`" in text


def test_the_five_numbers_of_the_readme_are_among_the_results():
    rows = re.findall(r"^\| .* \| ([\d.]+).* \| ([\d.]+).*: .* \| .*`.* \|$", PAGES["README.md"], flags=re.MULTILINE)
    assert len(rows) == 5
    for here, beside in rows:
        assert here in PAGES["results.md"]
        assert beside in PAGES["results.md"] or beside == "0.5"  # chance


def test_a_block_says_in_which_language_it_is():
    for page in PAGES:
        assert {language for language, _ in blocks(page)} <= {"sh", "text"}, page


@pytest.mark.parametrize(("card", "gpus", "column"), [("rtx3090", 1, 0), ("h100", 1, 0), ("h100", 8, 1)])
def test_hours_of_the_recipe_are_the_planners(card, gpus, column, capsys):
    rows = re.findall(r"^\| (\w.*) \| (\d+ \w+) \| (\d+ \w+) \| `(\w+)` \|$", PAGES["recipe.md"], flags=re.MULTILINE)
    assert len(rows) == 9
    of_convnext = plan.preset(plan.PlanOptions("convnext", card))
    for step, *times, preset in rows:
        network, size = (of_convnext.network, of_convnext.image_size) if preset == "study" else (None, None)
        plan.main(plan.PlanOptions(preset, card, gpus=gpus, cores=16, network=network, image_size=size))
        printed = capsys.readouterr().out
        assert re.search(rf"^{re.escape(step)}, 5 folds .* {times[column]} ", printed, flags=re.MULTILINE), (
            step,
            printed,
        )
        assert "101.2 GB" in printed


def test_verdicts_of_drawings_and_people_are_those_that_were_written():
    expected = written("realism")["verdicts"]
    rows = re.findall(
        r"^\| (\w+) \| ([.\d]+) \| ([.\d]+) \| ([.\d]+) \| ([.\d]+) \|$", PAGES["phantom.md"], re.MULTILINE
    )
    assert {name: numbers for name, *numbers in rows} == {
        name: [
            f"{row[f'{of} {what}']:.{digits}f}"
            for what, digits in (("loss", 4), ("AUC", 3))
            for of in ("phantom", "real")
        ]
        for name, row in expected["rows"].items()
    }
    assert [numbers[0] for _, *numbers in rows] == sorted(numbers[0] for _, *numbers in rows)
    for value in expected["agreement"].values():
        assert f"**.{round(100 * value)}**" in PAGES["phantom.md"]
    assert f"commit `{expected['commit'][:7]}`" in PAGES["phantom.md"]


def test_the_chosen_blend_stands_beside_the_best_way_at_every_size_as_it_was_written():
    text, main = sections("results.md")["What blends and pseudolabels are worth"], written("blending")
    every = {"100 studies, equal folds": main, **main["others"]}
    rows = re.findall(
        r"^\| (\d+ studies, .*) \| (\w+) (\S+) \| (\S+) \| (\S+ \[.*\]) \| (\d) of 5 \|$", text, re.MULTILINE
    )
    assert {name for name, *_ in rows} == set(every)
    for name, way, best, chosen, apart, proven in rows:
        of = every[name]["rows"]
        assert way == min(WAYS, key=lambda one: of[one]["mean"])
        row = of[way]
        assert (best, chosen) == (f"{row['mean']:.4f}", f"{of['by_label']['mean']:.4f}")
        assert apart == f"{row['chosen worse by']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"
        assert int(proven) == row["proven"]


def test_what_an_answer_takes_is_what_was_written():
    text, expected = sections("results.md")["One command from a folder to an answer"], written("own_ct")
    for name, row in expected["rows"].items():
        assert f"| {name} | {row['seconds']:.1f} s | {row['cpu']:.1f} s | {row['mebibytes']:,.0f} MiB |" in text
    assert f"commit `{expected['commit'][:7]}`" in text
    assert expected["apart"] == 0
