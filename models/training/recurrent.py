"""Recurrent layers over the slices of a study: they correct what a network says of each slice by itself.

Over the embeddings of networks that are trained already (SequenceConfig), or trained together with one (StudyConfig,
the original's "rcnn"). Both take whole studies or stretches of them, as one flat batch of slices with their places.
"""

import math
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

from models.common.config import SequenceConfig, StudyConfig
from models.common.labels import LABELS
from models.common.recurrence import Recurrence
from models.preprocessing.geometry import USUAL_GAP
from models.training.attention import AttentionLayers, ClassAttention
from models.training.joint import JointLogits
from models.training.networks import HemorrhageNetwork, build_network
from models.training.processes import largest_of_all
from models.training.studies import split_studies

POSITIONS = 5  # numbers that tell where a slice lies
_LENGTH, _TILT = 100.0, 20.0  # mm, degrees: what is usual in a head CT is then about 1


class RecurrentLayers(nn.Module):
    """Embeddings and logits of slices, and their places -> better logits (slices, 6).

    A slice is described by its embedding and logits, by their differences to the slice before and the one after, and
    by its position. What comes out is added to the logits (their mean, of several networks), to begin with nothing.
    """

    def __init__(self, width: int, networks: int, config: Recurrence) -> None:
        """For embeddings of `width` numbers, those of all networks together."""
        super().__init__()
        self.networks = networks
        described = width + networks * len(LABELS)
        self.normalise = nn.LayerNorm(described)
        self.enter = nn.Linear(3 * described + POSITIONS, config.hidden)
        self.cells, width = build_cells(config)
        self.dropout, self.logits_dropout = nn.Dropout(config.dropout), config.logits_dropout
        self.leave = nn.Linear(width, len(LABELS))
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        self.study = ClassAttention(width) if config.study_weight else None

    def forward(self, seen: torch.Tensor, place: torch.Tensor) -> torch.Tensor | JointLogits:
        """`seen`: embeddings, then logits of each network (slices, width + 6 networks); `place` (slices, 3)."""
        seen = self.without_some_logits(seen)
        logits = seen[:, -self.networks * len(LABELS) :].float().unflatten(1, (self.networks, -1)).mean(dim=1)
        lengths = split_studies(place)
        place = place.to(seen.device, non_blocking=True)
        described = torch.cat([with_differences(self.normalise(seen.float()), lengths), positions(place, lengths)], 1)
        entered = self.dropout(torch.relu(self.enter(described)))
        flat = self.dropout(self.carry(entered, place[:, 1], lengths))
        better = logits + self.leave(flat).float()
        if self.training and self.study is not None:
            return JointLogits(better, lengths, study=self.study(flat, lengths))
        return better

    def without_some_logits(self, seen: torch.Tensor) -> torch.Tensor:
        """In training, the logits of some slices are 0: these are told by their embedding and by their neighbours.

        `seen` as in `forward`, (slices, width + 6 networks).
        """
        if not (self.training and self.logits_dropout):
            return seen
        kept = torch.rand(len(seen), 1, device=seen.device) >= self.logits_dropout
        embedding, logits = seen.tensor_split([-self.networks * len(LABELS)], dim=1)
        return torch.cat([embedding, logits * kept], dim=1)

    def carry(self, entered: torch.Tensor, z: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """What the cells make of the slices of studies, (slices, hidden) at z (slices,) -> (slices, what they say)."""
        if isinstance(self.cells, AttentionLayers):
            return self.cells(entered, z, lengths)
        longest_first = sorted(range(len(lengths)), key=lambda study: -lengths[study])  # torch would sort on the device
        studies = entered.split(lengths)
        carried, _ = self.cells(pack_sequence([studies[study] for study in longest_first]))
        unpacked, _ = pad_packed_sequence(carried, batch_first=True)
        back = sorted(zip(longest_first, unpacked, strict=True), key=lambda pair: pair[0])
        return torch.cat([rows[: lengths[study]] for study, rows in back])


def build_cells(config: Recurrence) -> tuple[nn.Module, int]:
    """The layers that see several slices, and how many numbers they say of each."""
    if config.cell == "transformer":
        return AttentionLayers(config), config.hidden
    cell = {"gru": nn.GRU, "lstm": nn.LSTM}[config.cell]
    dropout = config.dropout if config.layers > 1 else 0.0
    cells = cell(config.hidden, config.hidden, config.layers, bidirectional=True, batch_first=True, dropout=dropout)
    return cells, 2 * config.hidden


def with_differences(values: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Values (slices, n), less those of the slice before, less those of the slice after: (slices, 3n).

    At the ends of a study the differences are 0.
    """
    return with_steps(values, steps(values, lengths))


def with_steps(values: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """The same from the `steps` of the values, (slices + 1, n)."""
    return torch.cat([values, step[:-1], -step[1:]], dim=1)


def positions(place: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Where each slice lies in its study, (slices, POSITIONS), from the places (slices, 3).

    The distances to both ends (base and vertex), the gaps to the slices before and after, and the tilt. They do not
    depend on where the scanner's zero is, and a study that is turned upside down has the same of each slice, in turn.
    """
    z, tilt = place[:, 1], place[:, 2:]
    # Of each study (slices, 2). A list as an index would be brought to the device, and waited for.
    ends = [(study.unsqueeze(1) - torch.stack([study[0], study[-1]])).abs() for study in z.split(lengths)]
    return describe_place(torch.cat(ends), steps(z.unsqueeze(1), lengths), tilt)


def describe_place(ends: torch.Tensor, step: torch.Tensor, tilt: torch.Tensor) -> torch.Tensor:
    """The numbers of `positions`, (slices, POSITIONS).

    From the distances to both ends (slices, 2), the `steps` of z (slices + 1, 1) and the tilt (slices, 1).
    """
    gap = step.abs().clamp(max=4 * USUAL_GAP) / USUAL_GAP
    return torch.cat([ends / _LENGTH, gap[:-1], gap[1:], tilt / _TILT], dim=1)


def steps(values: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """By how much values (slices, n) change from each slice to the next, 0 between studies: (slices + 1, n)."""
    step = torch.nn.functional.pad(values.diff(dim=0), (0, 0, 1, 1))
    ends = torch.tensor([0, *lengths]).cumsum(0).to(values.device, non_blocking=True)
    return step.index_fill(0, ends, 0.0)


def build_sequence_network(config: SequenceConfig, width: int) -> RecurrentLayers:
    """The network of a configuration, with random weights; `width` is that of all embeddings together."""
    return RecurrentLayers(width, len(config.runs), config)


class StudyNetwork(nn.Module):
    """A network of slices and the recurrent layers over it: grey values of slices and their places -> logits."""

    def __init__(self, slices: HemorrhageNetwork, config: StudyConfig) -> None:
        super().__init__()
        self.slices, self.slices_at_once = slices, config.slices_at_once
        self.studies = RecurrentLayers(slices.width, 1, config)
        self.batch_statistics, self.tells_slices = config.batch_statistics, config.slice_weight > 0

    def train(self, mode: bool = True) -> "StudyNetwork":
        """To train, or not to; without statistics of the batch norm layers keep those that they have."""
        super().train(mode)
        if not self.batch_statistics:
            for norm in norms(self.slices):
                norm.eval()
        return self

    def forward(self, grey: torch.Tensor, place: torch.Tensor) -> torch.Tensor | JointLogits:
        """uint8 (slices, channels, height, width) and places (slices, 3) -> logits (slices, 6)."""
        embed, passes = self.slices.embed, math.ceil(len(grey) / self.slices_at_once)
        if torch.is_grad_enabled():
            # Gradient checkpointing (arXiv:1604.06174): of all slices but some only the embedding is kept.
            contexts = partial(forward_and_again, self.slices)
            embed = partial(checkpoint, embed, use_reentrant=False, context_fn=contexts)
        if self.training:  # in each pass the processes of a run share batch statistics: all make as many
            passes = largest_of_all(passes)
        parts = filled(grey, passes).tensor_split(passes)
        embedding = torch.cat([embed(some) for some in parts])[: len(grey)]
        alone = self.slices.head(embedding)
        together = self.studies(torch.cat([embedding, alone], dim=1), place)
        if not (self.training and self.tells_slices):
            return together
        joint = together if isinstance(together, JointLogits) else JointLogits(together, split_studies(place))
        return joint._replace(alone=alone)


def filled(values: torch.Tensor, least: int) -> torch.Tensor:
    """Values (n, ...), at least so many: the last one is repeated where they are fewer."""
    lacking = max(least - len(values), 0)
    return torch.cat([values, values[-1:].expand(lacking, *values.shape[1:])]) if lacking else values


def build_study_network(config: StudyConfig) -> StudyNetwork:
    """The network of a configuration, with random weights. Raises InputError as `build_network`."""
    return StudyNetwork(build_network(config), config)


def forward_and_again(network: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """What surrounds a forward pass, and its repetition: batch-norm statistics are moved by the first alone."""
    return nullcontext(), unmoved_statistics(network)


@contextmanager
def unmoved_statistics(network: nn.Module) -> Generator[None]:
    """After the block the running batch-norm statistics are what they were, and what is computed does not change."""
    before = [(buffer, buffer.clone()) for norm in norms(network) for buffer in norm.buffers(recurse=False)]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.data.copy_(value)  # of the data: autograd would take them for changed, but they are as it knew them


def norms(network: nn.Module) -> list[nn.Module]:
    """The layers of a network that keep statistics of batches."""
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]


def both_ways(network: nn.Module, seen: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Probabilities (slices, 6), the mean over studies as they are and turned upside down."""
    upright = network(seen, place).sigmoid()
    return (upright + network(seen.flip(0), place.flip(0)).sigmoid().flip(0)) / 2
