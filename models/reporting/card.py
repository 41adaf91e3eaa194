"""The card of a release, in Markdown and in HTML: the same fields, none of them empty, every number traced."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from models.common.errors import InputError
from models.reporting import card_text as words
from models.reporting.card_fields import CARD_FACTS, Block, Field, Table, describe, made
from models.reporting.card_measured import measured
from models.reporting.markup import fill
from models.reporting.traced import Traced


class Card(NamedTuple):
    """A card, and where its numbers stand."""

    markdown: str
    html: str
    sources: str  # sources.csv


def make_card(files: Mapping[str, Any], folds: Sequence[str]) -> Card:
    """The card of what the files of a release tell; `folds` names the config.json of each fold.

    Raises InputError if a field of it would be empty.
    """
    show = Traced(files)
    fields = [*describe(show, folds), *measured(show), *made(show, folds)]
    require_said(fields)
    release = files[CARD_FACTS]
    title = f"{show(CARD_FACTS, 'name')}: hemorrhage on head CT"
    warnings = [words.NOT_A_DEVICE, *([words.SYNTHETIC] if release["synthetic"] else [])]
    html = fill("card.html", {"coded": coded, "anchor": anchor}, title=title, warnings=warnings, fields=fields)
    return Card(to_markdown(title, warnings, fields), html, show.to_csv())


def require_said(fields: Sequence[Field]) -> None:
    """Raise InputError for a field without a word, or a cell without one."""
    for field in fields:
        for block in field.blocks or [""]:
            cells = [block] if isinstance(block, str) else [cell for row in block.rows for cell in row]
            if not cells or not all(cell.strip() for cell in cells):
                raise InputError(f"the card would say nothing under {field.title}: {block}; train that run anew")


def to_markdown(title: str, warnings: Sequence[str], fields: Sequence[Field]) -> str:
    """The text of card.md."""
    parts = [f"# {title}", *(f"**{warning}**" for warning in warnings)]
    for field in fields:
        parts += [f"## {field.title}", *(_block(block) for block in field.blocks)]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    if isinstance(block, Table):
        lines = [block.head, ["---"] * len(block.head), *block.rows]
        return "\n".join(f"| {' | '.join(_plain(cell) for cell in line)} |" for line in lines)
    return block


def _plain(cell: str) -> str:
    """A cell that ends no row, and begins no column."""
    return " ".join(cell.replace("|", "\\|").split())


def coded(text: str) -> Markup:
    """A text as HTML, in which what stands between backticks is code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts)
    )


def anchor(title: str) -> str:
    """The name of a heading in the address of a page."""
    return re.sub(r"\W+", "-", title.lower())
