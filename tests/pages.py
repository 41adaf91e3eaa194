"""README.md and the pages of docs/: their text, their command lines, and what a line promises.

A line of a block of shell commands is executed by the tests, unless its comment says what it needs, which tests lack:

    python models/report.py          # -> report_blend.html: what it writes
    torchrun models/train_b2.py      # needs eight GPUs
"""

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
PAGES = {
    path.name: path.read_text() for path in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
}
# The shell reads a line itself; in place of each command that it finds there, it prints the command's words.
_READ = 'command_not_found_handle() { printf "%s\\n" "${*@Q}"; }\n'


@dataclass(frozen=True)
class Line:
    """A line that a reader types, as it stands in a block or in a table."""

    page: str
    text: str
    needs: str | None  # what a test cannot have
    writes: tuple[str, ...]  # patterns of files and folders; none: it prints what it has to say

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command, as the shell calls them one after the other."""
        shell = ["/bin/bash", "-c", f"{_READ}{self.text}\nwait"]
        read = subprocess.run(shell, env={"PATH": "/nonexistent"}, capture_output=True, text=True, check=True)
        return [shlex.split(line) for line in read.stdout.splitlines()]


def blocks(page: str) -> list[tuple[str, str]]:
    """The language and the text of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", PAGES[page], flags=re.MULTILINE | re.DOTALL)


def shell_lines(page: str) -> list[Line]:
    """The lines of all blocks of shell commands, in their order."""
    lines = (line for language, block in blocks(page) if language == "sh" for line in block.splitlines())
    return [_shell_line(page, line) for line in lines if line.strip()]


def _shell_line(page: str, line: str) -> Line:
    text, _, comment = line.partition(" # ")
    comment = comment.strip()
    if comment.startswith("needs "):
        return Line(page, text.strip(), comment.removeprefix("needs "), ())
    return Line(page, text.strip(), None, tuple(re.findall(r"-> ([^\s:,]+)", comment)))


def pipeline() -> list[Line]:
    """The rows of the README's table of steps: their commands one after the other, and the files that they write."""
    rows = re.findall(r"^\| \d+ \| (.*) \| .* \| (.*) \|$", PAGES["README.md"], flags=re.MULTILINE)
    return [Line("README.md", _commands(cell), None, tuple(_files(writes))) for cell, writes in rows]


def _commands(cell: str) -> str:
    code = _code(cell)
    commands = [text for text in code if text.startswith("python ")]
    return "; ".join(commands or [f"jupyter execute {code[0]}"])


def _files(cell: str) -> list[str]:
    """Patterns of the paths in a cell: `runs/fold<k>/{a,b}` are two, with any number for the fold."""
    patterns = []
    for text in _code(cell):
        start, choices, end = re.fullmatch(r"([^{]*)(?:\{(.*)\})?(.*)", re.sub(r"<\w+>", "*", text)).groups()
        patterns += [f"{start}{choice}{end}" for choice in (choices or "").split(",")]
    return patterns


def _code(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def commands_in_sentences(page: str) -> list[Line]:
    """Commands of this repository outside of the blocks, between backticks."""
    text = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    code = [" ".join(code.split()) for code in _code(text)]
    return [Line(page, code, None, ()) for code in code if re.match(r"(python|torchrun) ", code)]
