"""Compressed pixels -> arrays, in a process of their own: a damaged file may crash, hang or bloat a decoder.

Run as a module, this is that process: it decodes what comes through its standard input until that ends.
"""

import atexit
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import UID, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

SECONDS, SECONDS_A_FRAME = 3.0, 0.1  # CT slices take milliseconds
MEMORY = 400 << 20  # bytes beyond what the process has at its start


_READY = b"ready"
_children: dict[int, subprocess.Popen] = {}  # thread -> its decoder


class DecodingError(Exception):
    """The decoder failed, crashed, or needed more than its time or memory."""


def missing_decoder(syntax: UID) -> str | None:
    """None if compressed pixels of this kind can be decoded here; else the package that is missing, or ""."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return ""
    if decoder.is_available:
        return None
    return "pylibjpeg-libjpeg" if any("libjpeg" in line for line in decoder.missing_dependencies) else ""


def decode_guarded(pixels: bytes, syntax: UID, options: dict) -> Iterator[np.ndarray]:
    """Yield the frames of encapsulated or big-endian pixels, one (rows, columns) array each.

    `options` are those of pydicom's `Decoder.iter_array` (rows, columns, bits_stored, ...). Raises DecodingError.
    """
    child = _child()
    requests, answers = _pipes(child)
    allowed = SECONDS + SECONDS_A_FRAME * options["number_of_frames"]
    alarm = threading.Timer(allowed, child.kill)
    alarm.start()
    whole = False
    try:
        _send(requests, json.dumps({"syntax": syntax, "options": options}).encode())
        _send(requests, pixels)
        for _ in range(options["number_of_frames"]):
            head = json.loads(_receive(answers))
            yield np.frombuffer(_receive(answers), head["dtype"]).reshape(head["shape"])
        whole = True
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise DecodingError from error
    finally:
        alarm.cancel()
        if not whole:  # also where the caller stops half-way: what is left in the pipe is of no use
            child.kill()
            _children.pop(threading.get_ident(), None)


def _child() -> subprocess.Popen:
    """The decoder of this thread; another is started when it has died. Its start does not count as time of a file."""
    thread = threading.get_ident()
    if thread not in _children or _children[thread].poll() is not None:
        command = [sys.executable, "-m", "models.preprocessing.decoding"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        child = subprocess.Popen(command, **pipes, env={**os.environ, "OMP_NUM_THREADS": "1"})
        atexit.register(child.kill)
        _, answers = _pipes(child)
        if answers.read(len(_READY)) != _READY:
            raise RuntimeError(f"the decoder does not start: {' '.join(command)}")
        _children[thread] = child
    return _children[thread]


def _pipes(child: subprocess.Popen) -> tuple[IO[bytes], IO[bytes]]:
    """Where a decoder is asked, and where it answers."""
    assert child.stdin is not None
    assert child.stdout is not None
    return child.stdin, child.stdout


def _send(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(len(data).to_bytes(8, "little"))
    pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    size = int.from_bytes(pipe.read(8), "little")
    data = pipe.read(size)
    if not size or len(data) < size:
        raise EOFError
    return data


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until they end; an error of the decoder ends the process, which is the answer too."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    answers.write(_READY)
    answers.flush()
    while True:
        try:
            request = json.loads(_receive(requests))
        except EOFError:
            return
        syntax, options, pixels = UID(request["syntax"]), request["options"], _receive(requests)
        if syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes):
            _refuse_torn(pixels, options["number_of_frames"])
        frames = get_decoder(syntax).iter_array(pixels, raw=True, **options)
        for _ in range(options["number_of_frames"]):
            frame, _ = next(frames)
            _send(answers, json.dumps({"dtype": frame.dtype.str, "shape": frame.shape}).encode())
            _send(answers, np.ascontiguousarray(frame).tobytes())


def _refuse_torn(pixels: bytes, frames: int) -> None:
    """Raise ValueError for a codestream without its end marker: these decoders would fill it up with anything."""
    for frame in generate_frames(pixels, number_of_frames=frames):
        if not frame.rstrip(b"\0").endswith(b"\xff\xd9"):  # EOI, ITU-T T.81 B.1.1.3
            raise ValueError("the codestream is cut off")


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
