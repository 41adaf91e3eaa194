"""The command lines that errors and hints name: built here, so that each runs where it is pasted."""

import shlex
import sys
from pathlib import Path
from typing import Literal

from models.common.folders import Work, default_data, default_work

_SCRIPTS = Path(__file__).parent.parent
_FOLDERS = ("--work", "--work-from", "--data", "--output")  # flags, the second of several folders
_ANY = "small"  # whose scripts serve a run that nothing else resembles


def command_of(script: str, *words: object, work: Work | None = None, data: Path | None = None) -> str:
    """The line that runs models/<script>.py with these words, quoted for a shell.

    Behind them folders and stage, where they are not those that the script takes by itself.
    """
    flags: list[object] = []
    if data is not None and data.absolute() != default_data().absolute():
        flags += ["--data", data]
    if work is not None and work.root.absolute() != default_work().absolute():
        flags += ["--work", work.root]
    if work is not None and work.stage:
        flags += ["--stage", work.stage]
    return shlex.join(map(str, ["python", f"models/{script}.py", *words, *flags]))


def command_of_run(step: Literal["train", "infer"], name: str, work: Work, fold: int | None = None) -> str:
    """The line that trains or infers a run, or a fold of it.

    A run that has no script of its own, since --name has named it, is that of the script whose name it begins with.
    Inference of any run is the same, whatever the script: config.json beside the weights tells how it is built.
    """
    script = f"{step}_{name}"
    words: list[object] = []
    if not (_SCRIPTS / f"{script}.py").is_file():
        script = _nearest(step, name)
        words += ["--name", name]
    return command_of(script, *words, *([] if fold is None else ["--fold", fold]), work=work)


def command_of_fold(step: Literal["train", "infer"], folder: Path) -> str:
    """The same of the fold whose folder this is, WORK/runs/<name>/fold<k>, in that working folder."""
    place, number = folder.absolute(), folder.name.removeprefix("fold")
    relative = folder if folder.is_absolute() else Path(*folder.parts[:-3])
    work = Work(place.parents[2] if folder.is_absolute() or len(folder.parts) < 3 else relative)
    return command_of_run(step, place.parent.name, work, int(number) if number.isdecimal() else None)


def typed_command() -> str | None:
    """The line that has started this process, if it runs a script of models/: to be noted of what it makes.

    Without folders, whose names may tell of a person, and which are others on another machine.
    """
    script, words, of_folders = Path(sys.argv[0]), [], False
    if script.resolve().parent != _SCRIPTS:
        return None
    for word in sys.argv[1:]:
        if word.startswith("--"):
            of_folders = word.partition("=")[0].replace("_", "-") in _FOLDERS
        if not of_folders:
            words.append(word)
    return shlex.join(["python", f"models/{script.name}", *words])


def _nearest(step: str, name: str) -> str:
    scripts = [path.stem for path in _SCRIPTS.glob(f"{step}_*.py")]
    alike = [script for script in scripts if f"{step}_{name}".startswith(f"{script}_")]
    return max(alike, key=len, default=f"{step}_{_ANY}")
