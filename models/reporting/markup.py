"""A template of this folder -> an HTML page, in which every text is escaped, and scripts and requests are forbidden."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_FOLDER = Path(__file__).parent
_STYLE = "page.css"


def fill(template: str, filters: Mapping[str, Callable[..., str]], **values: Any) -> str:
    """The page that a template makes of some values, in the style of all pages."""
    style = (_FOLDER / _STYLE).read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(template).render(
        style=Markup(style),  # the one text that is not escaped: it is this project's own
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        **values,
    )


def data_uri(kind: str, content: bytes) -> str:
    """Content of a media type like "image/png" as an address that needs no file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
