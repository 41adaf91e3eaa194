"""Compressed pixels -> arrays, in a process of their own: a damaged file may crash, hang or bloat a decoder.

Run as a module, this is that process: it decodes what comes through its connection until that ends. What a file may
cost is counted in time of the processor and in memory, which other work on the machine does not change. What kills or
starves a decoder from outside says nothing of the file, and is an OSError.
"""

import json
import math
import mmap
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.util import find_spec
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import numpy as np
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import UID, JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

SECONDS, SECONDS_A_FRAME = 3.0, 0.1  # of the processor; CT slices take milliseconds
MEMORY = 200 << 20  # bytes beyond what the process has before it decodes
HANG = 300  # seconds without an answer, counted while this process runs: stopped ones do not count


_READY = b"ready"
_NO_MEMORY_LEFT = 127  # what the dynamic linker ends a process with that may have no more
# What a file can do to a decoder.
_CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGFPE, -signal.SIGILL, _NO_MEMORY_LEFT}
_own = threading.local()  # the decoder of each thread


class DecodingError(Exception):
    """The decoder failed, crashed, or needed more than its time or memory: because of the file."""


class _CrashError(Exception):
    """The decoder crashed."""


@cache
def missing_decoder(syntax: UID) -> str | None:
    """None if pixels of this kind can be decoded here; else the package that is missing, or "" if there is none."""
    if syntax in JPEGTransferSyntaxes:
        return None if find_spec("imagecodecs") else "imagecodecs"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return ""
    if decoder.is_available:
        return None
    if syntax in JPEGLSTransferSyntaxes:
        return "pyjpegls"
    return "pylibjpeg-openjpeg" if syntax in JPEG2000TransferSyntaxes else ""


def decode_guarded(pixels: bytes, syntax: UID, options: dict) -> Iterator[np.ndarray]:
    """Yield the frames of encapsulated or big-endian pixels, one (rows, columns) array each.

    `options` are those of pydicom's `Decoder.iter_array` (rows, columns, bits_stored, ...). Raises DecodingError for
    pixels that cannot be decoded, and OSError if the decoder was lost, or could not start: then the same may go well.
    """
    done = 0
    for is_last in (False, True):
        try:
            for index, frame in enumerate(_frames(pixels, syntax, options)):
                if index >= done:
                    done = index + 1
                    yield frame
            return
        except _CrashError as error:
            if is_last:  # in a fresh process, too
                raise DecodingError from error


def _frames(pixels: bytes, syntax: UID, options: dict) -> Iterator[np.ndarray]:
    decoder = _decoder()
    whole = False
    try:
        decoder.send(json.dumps({"syntax": syntax, "options": options}).encode())
        decoder.send(pixels)
        for _ in range(options["number_of_frames"]):
            answer = json.loads(decoder.receive())
            if "error" in answer:
                raise (DecodingError if answer["is_of_file"] else ChildProcessError)(answer["error"])
            yield np.frombuffer(decoder.receive(), answer["dtype"]).reshape(answer["shape"])
        whole = True
    finally:
        if not whole:  # also where the caller stops half-way: what is left in the pipe is of no use
            decoder.stop()


def _decoder() -> "Decoder":
    """The decoder of this thread; another is started when it has died. Its start does not count as time of a file."""
    if not hasattr(_own, "decoder") or _own.decoder.process.poll() is not None:
        _own.decoder = Decoder()
    return _own.decoder


class Decoder:
    """A process that decodes, and the connection to it. It ends when the connection is closed, whoever closes it."""

    def __init__(self) -> None:
        """Start it. Raises OSError if it does not."""
        self._connection, theirs = Pipe()
        with theirs:
            handle = theirs.fileno()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "models.preprocessing.decoding", str(handle)],
                pass_fds=[handle],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # some decoders print
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        with ExitStack() as unless_ready:
            unless_ready.callback(self.stop)
            try:
                is_ready = self.receive() == _READY
            except (_CrashError, DecodingError) as error:  # before it has seen a file
                raise ChildProcessError(f"the decoder does not start: {error}") from error
            if not is_ready:
                raise ChildProcessError("the decoder does not start")
            unless_ready.pop_all()

    def send(self, data: bytes) -> None:
        """Raises OSError or _CrashError if it has died."""
        try:
            self._connection.send_bytes(data)
        except OSError as error:
            raise self._cause_of_death() from error

    def receive(self) -> bytes:
        """Its next answer. Raises DecodingError, OSError or _CrashError if it has died, OSError if it hangs."""
        for _ in range(HANG):
            if self._connection.poll(1):
                try:
                    return self._connection.recv_bytes()
                except (EOFError, OSError) as error:
                    raise self._cause_of_death() from error
        raise ChildProcessError(f"the decoder has not answered in {HANG} seconds")

    def stop(self) -> None:
        """End it, and leave nothing of it."""
        self._connection.close()
        self.process.kill()
        self.process.wait()

    def _cause_of_death(self) -> Exception:
        code = self.process.wait()
        if code == -signal.SIGXCPU:
            return DecodingError("it took too long")
        if code in _CRASHES:
            return _CrashError(f"the decoder ended with code {code}")
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return ChildProcessError(f"the decoder was {how}")


def _forget_decoder() -> None:
    """In a fork: the decoder is its parent's."""
    global _own  # noqa: PLW0603
    _own = threading.local()


os.register_at_fork(after_in_child=_forget_decoder)


# ---- the process that decodes ----


def _serve(connection: Connection) -> None:
    """Answer requests until they end; what a file has done to the decoder is told, and ends the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; this process ends when its parent does
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection.send_bytes(_READY)
    while True:
        try:
            request = json.loads(connection.recv_bytes())
            pixels = connection.recv_bytes()
        except (EOFError, OSError):
            return
        if not _answer(connection, UID(request["syntax"]), pixels, request["options"]):
            return


def _answer(connection: Connection, syntax: UID, pixels: bytes, options: dict) -> bool:
    """Send each frame; or what went wrong, and return False."""
    memory = None
    try:
        plugin = _load(syntax)
        with _limited(SECONDS + SECONDS_A_FRAME * options["number_of_frames"]) as memory:
            if syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes):
                _refuse_torn(pixels, options["number_of_frames"])
            frames = get_decoder(syntax).iter_array(pixels, raw=True, decoding_plugin=plugin, **options)
            for _ in range(options["number_of_frames"]):
                frame = np.ascontiguousarray(next(frames)[0])
                data = frame.tobytes()
                connection.send_bytes(json.dumps({"dtype": frame.dtype.str, "shape": frame.shape}).encode())
                connection.send_bytes(data)
    except BaseException as error:  # decoders fail in any way, those in Rust with a BaseException
        answer = {"error": str(error), "is_of_file": memory is not None and _is_of_file(error, memory)}
        connection.send_bytes(json.dumps(answer).encode())
        return False
    return True


def _load(syntax: UID) -> str:
    """Import what decodes this kind of pixels, before limits are set; returns the plug-in that pydicom is to use."""
    if syntax not in JPEGTransferSyntaxes:
        return ""
    from models.preprocessing import jpeg_plugin

    jpeg_plugin.register()
    return jpeg_plugin.LABEL


@contextmanager
def _limited(seconds: float) -> Generator[int]:
    """Within the block this process may use so many seconds of the processor, and MEMORY; yields its limit in bytes."""
    memory = _used_memory() + MEMORY
    limits = {resource.RLIMIT_CPU: math.ceil(time.process_time() + seconds), resource.RLIMIT_AS: memory}
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield memory
    finally:  # to say what was wrong takes memory, too
        for kind in limits:
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (hard, hard))


def _used_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _is_of_file(error: BaseException, memory: int) -> bool:
    """Whether the file, and not the system, made a decoder fail, which may use so many bytes.

    Decoders do not say that memory was lacking: it was where this process cannot have what its own limit left it.
    """
    if isinstance(error, OSError) and error.errno:
        return False
    left = int(0.9 * (memory - _used_memory()))
    try:
        mmap.mmap(-1, max(left, mmap.PAGESIZE)).close()
    except OSError:
        return left < mmap.PAGESIZE
    return True


def _refuse_torn(pixels: bytes, frames: int) -> None:
    """Raise ValueError for a codestream without its end marker: these decoders would fill it up with anything."""
    for frame in generate_frames(pixels, number_of_frames=frames):
        if not frame.rstrip(b"\0").endswith(b"\xff\xd9"):  # EOI, ITU-T T.81 B.1.1.3
            raise ValueError("the codestream is cut off")


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
