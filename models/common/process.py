"""What a process of this project sets for itself when it starts. Importing a module changes nothing of this kind."""

import logging
import os
import warnings

_TRACKER = "ignore:resource_tracker:UserWarning"


def start_process() -> None:
    """Set the logging, the warnings and the environment of this process, and so of those that it starts.

    Called where a process begins: by the command line, by the workers of joblib, Dask and a DataLoader, by a notebook's
    first cell and by the tests. Calling it again changes nothing.
    """
    # A number that is set outside goes before that of a call: blosc2 would start threads anew for every chunk.
    os.environ["BLOSC_NTHREADS"] = "1"
    # What is wrong with a file is said by its Reason (preprocessing/elements.py), not by pydicom's log,
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pydicom")  # nor by its warnings
    # What dependencies say to each other and a user cannot act on,
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
    # the process that counts semaphores among them: one that is given back while a run ends it calls leaked.
    asked = [filter_ for filter_ in os.environ.get("PYTHONWARNINGS", "").split(",") if filter_ not in ("", _TRACKER)]
    os.environ["PYTHONWARNINGS"] = ",".join([*asked, _TRACKER])
