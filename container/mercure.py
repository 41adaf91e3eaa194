"""What the container runs: the files of one order -> answers, by the convention of Mercure, a DICOM orchestrator.

    MERCURE_IN_DIR=in MERCURE_OUT_DIR=out python container/mercure.py

in/[series_UID]#[file_UID].dcm    the slices of a study, or of one series of it; .tags files beside them are left alone
in/task.json                      "process": {"settings": {...}}; SETTINGS says which there are; may be missing
out/[series_UID]#[file_UID].dcm   a structured report and key slices, which belong into the study
out/result.json                   what answer.json of predict.py tells of each study, and a line for a notification

The network is the one in container/network, as models/export_onnx.py writes it. Exit code 0: answered, or refused with
the reason in result.json; 2: what came cannot be used, and Mercure files it as an error. Nothing is asked of a network
of computers. Research software, not a medical device: do not base a decision about a patient on it.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import pydicom

from models.common.errors import InputError
from models.common.files import write_text
from models.common.options import TestTimeAugmentation
from models.common.process import start_process
from models.inference.answer import WARNING
from models.inference.asked import PredictOptions
from models.reporting.answers import ANSWER
from models.reporting.predicting import predict, sentence

NETWORK = Path(__file__).parent / "network"
VIEWS = get_args(TestTimeAugmentation)
SETTINGS = {"tta": str, "prevalence": float, "dicom": bool}
"""those of predict.py that an order may have, and what they are; dicom is on unless it says otherwise"""


def main() -> int:
    """Answer what lies in MERCURE_IN_DIR; the exit code."""
    start_process()
    try:
        answer(_folder("MERCURE_IN_DIR"), _folder("MERCURE_OUT_DIR"), NETWORK)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def answer(order: Path, results: Path, network: Path) -> None:
    """Answer an order, and write what came of it.

    Raises InputError for settings that there are not, for an order without CT, and a folder that cannot be written to.
    """
    settings = {"dicom": True} | read_settings(order / "task.json")
    with tempfile.TemporaryDirectory(prefix="mercure_") as name:
        answers = Path(name)
        predict(PredictOptions((order,), weights=(network,), output=answers, engine="onnx", device="cpu", **settings))
        told = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(answers.glob(f"*/{ANSWER}"))]
        for file in sorted(answers.glob("*/dicom/*.dcm")):
            shutil.copyfile(file, results / name_of(file))
    write_text(results / "result.json", json.dumps(result_of(told), indent=1, ensure_ascii=False))


def read_settings(task: Path) -> dict[str, Any]:
    """The settings of an order, by their names; none where it has none, or no task, as outside of Mercure.

    Raises InputError for a file that is no task of Mercure's, and for settings that are none of SETTINGS.
    """
    if not task.exists():
        return {}
    try:
        process = json.loads(task.read_text(encoding="utf-8")).get("process") or {}
        process = process[-1] if isinstance(process, list) else process  # of several modules each has its own
        settings = dict(process.get("settings") or {})
    except (OSError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{task.name} cannot be read ({error}); Mercure writes one for each order") from error
    for name, value in settings.items():
        if name not in SETTINGS or not _is(value, SETTINGS[name]) or (name == "tta" and value not in VIEWS):
            there = ", ".join(f"{known} ({kind.__name__})" for known, kind in SETTINGS.items())
            raise InputError(f"{name}: {value!r} is no setting; there are {there}")
    return settings


def result_of(told: list[dict[str, Any]]) -> dict[str, Any]:
    """What result.json holds, of what answer.json tells of each study; a notification is asked for by an alarm."""
    alarms = [point["alarm"] for one in told if (point := one["operating_points"].get("sensitivity"))]
    text = "; ".join(sentence(one) for one in told)
    return {
        "warning": WARNING,
        "studies": told,
        "__mercure_notification": {"text": f"{text}. {WARNING}", "requested": any(alarms)},
    }


def name_of(file: Path) -> str:
    """What Mercure calls a DICOM file."""
    header = pydicom.dcmread(file, stop_before_pixels=True)
    return f"{header.SeriesInstanceUID}#{header.SOPInstanceUID}.dcm"


def _folder(variable: str) -> Path:
    folder = Path(os.environ.get(variable, ""))
    if not os.environ.get(variable) or not folder.is_dir():
        raise InputError(f"{variable} names no folder; Mercure sets it")
    return folder


def _is(value: Any, kind: type) -> bool:
    """Whether a value of JSON is of a kind; a whole number is a number, and true is none."""
    return isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))


if __name__ == "__main__":
    sys.exit(main())
