"""Runs to report on, and a page as a reader has it: its tables and figures, from the HTML alone."""

import base64
import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from scipy.special import expit

from models.common.files import write_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.reporting.subject import Scored
from models.train_small import CONFIG
from models.training.run_record import save_config
from models.training.weights import save_weights


def predict(slices: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Predictions that know something of the labels, of each as much as of no other."""
    target = slices[list(LABELS)].to_numpy()
    logits = np.random.default_rng(seed).normal(np.linspace(2.8, 1.2, len(LABELS)) * target - 2.5, 1.5)
    return pd.DataFrame(
        expit(logits).astype(np.float32), index=pd.Index(slices["image_id"], name="image_id"), columns=list(LABELS)
    )


def write_run(work: Work, name: str, slices: pd.DataFrame, notes: dict | None = None) -> None:
    """A run of two folds; `notes` are added to the versions in config.json."""
    for fold, rows in enumerate((slices[::2], slices[1::2])):
        folder = work.run(name, fold)
        write_parquet(folder / "valid.parquet", predict(rows, seed=fold).reset_index())
        save_weights(folder, torch.nn.Linear(1, 1))
        save_config(folder, CONFIG, fold, {"best_epoch": 3})
        file = folder / "config.json"
        values = json.loads(file.read_text())
        file.write_text(json.dumps(values | {"versions": values["versions"] | (notes or {})}))


def copy_of(prepared: Work, folder: Path, table: pd.DataFrame) -> Work:
    """A working folder with this metadata over the store of another one."""
    work = Work(folder)
    write_parquet(work.metadata("train"), table)
    work.slices(64).symlink_to(prepared.slices(64))
    return work


def scored(slices: pd.DataFrame) -> Scored:
    """These slices with what `predict` says of them."""
    slices = slices.reset_index(drop=True)
    return Scored(slices, slices[list(LABELS)].to_numpy(), predict(slices).to_numpy())


_PLAIN = {0x2019: "'", 0x2013: "-"}  # what a typesetter writes, and what a keyboard has


@dataclass
class Figure:
    """An image of a page."""

    section: str
    source: str
    alt: str
    caption: str = ""


@dataclass
class Article:
    """A case of a page."""

    kind: str  # the heading above it
    heading: str = ""
    figures: list[Figure] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)


@dataclass
class Page(HTMLParser):
    """The tables, each by what it is called, the figures and the articles of a page."""

    text: str
    tables: dict[str, list[list[str]]] = field(default_factory=dict)  # rows of cells, the head among them
    figures: list[Figure] = field(default_factory=list)
    articles: list[Article] = field(default_factory=list)
    key: dict[str, str] = field(default_factory=dict)  # the numbers at the top

    def __post_init__(self) -> None:
        super().__init__()
        self._section = self._name = self._kind = self._words = self._term = ""
        self._inside = False  # an article
        self.feed(self.text)

    def column(self, table: str, name: str) -> dict[str, str]:
        """The cells of a column by the first cell of their row."""
        head, *rows = self.tables[table]
        return {row[0]: row[head.index(name)] for row in rows if len(row) == len(head)}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "section":
            self._section = values["id"]
        elif values.get("role") == "region":
            self._name = values["aria-label"]
            self.tables[self._name] = []
        elif tag == "tr":
            self.tables[self._name].append([])
        elif tag == "article":
            self._inside = True
            self.articles.append(Article(self._kind))
        elif tag == "img":
            self.figures.append(Figure(self._section, values["src"], values["alt"]))
            if self._inside:
                self.articles[-1].figures.append(self.figures[-1])
        if tag in ("td", "th", "h3", "h4", "figcaption", "dt", "dd"):
            self._words = ""

    def handle_data(self, data: str) -> None:
        self._words += data

    def handle_endtag(self, tag: str) -> None:
        words = " ".join(self._words.translate(_PLAIN).split())
        if tag in ("td", "th"):
            self.tables[self._name][-1].append(words)
        elif tag == "h3":
            self._kind = words
        elif tag == "h4":
            self.articles[-1].heading = words
        elif tag == "figcaption" and self.figures and not self.figures[-1].caption:  # else one without a picture
            self.figures[-1].caption = words
        elif tag == "dt":
            self._term = words
        elif tag == "dd":
            self.key.setdefault(self._term, words)
        elif tag == "table" and self._inside:
            self.articles[-1].table = self.tables[self._name]
        elif tag == "article":
            self._inside = False


def pixels(source: str) -> np.ndarray:
    """The grey values of an image of a page."""
    content = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
