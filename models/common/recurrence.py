"""What layers over the slices of a study are, and which of its slices they are shown in training."""

from dataclasses import dataclass
from typing import Literal

Cell = Literal["gru", "lstm", "transformer"]


@dataclass(frozen=True, kw_only=True)
class Recurrence:
    """The layers over the slices of a study; `models/common/config.py` checks them."""

    cell: Cell = "gru"
    """gru or lstm, in both directions; or transformer: each slice attends to all, the less the more mm away they lie"""
    hidden: int = 128
    """numbers that a direction carries from slice to slice; that a slice has in a transformer"""
    layers: int = 1
    """recurrent or attention layers, one on the other"""
    heads: int = 4
    """of a transformer: each attends as far as a reach of its own, from 5 to 320 mm"""
    dropout: float = 0.3
    """share of what goes into and comes out of the layers that is left out in training"""
    logits_dropout: float = 0.0
    """share of the slices whose incoming logits are left out in training: they are too sure of what they have learnt"""
    spacing: float = 0.0
    """mm along z of which one slice is shown in training, drawn anew in each epoch; 0: all slices"""
    shortest: float = 1.0
    """shortest stretch of a study to train on, as a share of its slices, drawn anew in each epoch; 1: all of it"""
    reverse: bool = True
    """turn every other study upside down in training"""
    study_weight: float = 0.0
    """weight of the loss of what any slice of the study shows, told by layers of its own; 0: there are none"""
