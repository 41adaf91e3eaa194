"""A transformer over the slices of a study: each attends to all of them, the less the more millimetres away."""

import torch
from torch import nn
from torch.nn.functional import silu
from torch.nn.utils.rnn import pad_sequence

from models.common.labels import LABELS
from models.common.recurrence import Recurrence
from models.preprocessing.geometry import USUAL_GAP

FARTHEST = 64  # usual gaps: more than a head is long


class AttentionLayers(nn.Module):
    """What is known of the slices of studies, and their z -> the same, of each in sight of the others (slices, hidden).

    No slice has a number: a head takes off from the logits of its attention how far two slices lie apart, in units of
    its reach, from one usual gap to FARTHEST of them (ALiBi, arXiv:2108.12409, in mm). So thin and thick series
    are read alike, and one of four hundred slices as one of thirty.
    """

    def __init__(self, config: Recurrence) -> None:
        super().__init__()
        width = config.hidden
        # Not GELU: for that, and where no gradients are asked for, torch takes another way, which misreads such masks.
        layer = nn.TransformerEncoderLayer(
            width, config.heads, 2 * width, config.dropout, activation=silu, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, nn.LayerNorm(width), enable_nested_tensor=False)
        reach = USUAL_GAP * torch.logspace(0, 1, config.heads, base=FARTHEST)
        self.register_buffer("reach", reach, persistent=False)

    def forward(self, entered: torch.Tensor, z: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """`entered` (slices, hidden) and `z` in mm (slices,), of studies of so many slices -> (slices, hidden)."""
        studies, place = (pad_sequence(list(values.split(lengths)), batch_first=True) for values in (entered, z))
        mask = self.farness(place, lengths).to(studies.dtype)
        carried = self.layers(studies, mask=mask, is_causal=False)
        return torch.cat([rows[:length] for rows, length in zip(carried, lengths, strict=True)])

    def farness(self, z: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """What is added to the logits of the attention from each slice to each, (studies x heads, slices, slices).

        `z` is in mm, (studies, slices); beyond the length of a study there is nothing to attend to.
        """
        apart = (z.unsqueeze(2) - z.unsqueeze(1)).abs()
        absent = torch.arange(z.shape[1]) >= torch.tensor(lengths).unsqueeze(1)  # (studies, slices)
        absent = absent.to(z.device, non_blocking=True)
        apart = apart.masked_fill(absent.unsqueeze(1), float("inf")).unsqueeze(1)
        return (-apart / self.reach.view(-1, 1, 1)).flatten(0, 1)


class ClassAttention(nn.Module):
    """What is known of the slices of studies (slices, width) -> logits of what any of them shows (slices, 6).

    Each label attends to the slices by itself, as the class does to the patches of a picture (arXiv:2103.17239). All
    slices of a study are given the logits of their study.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attend, self.say = nn.Linear(width, len(LABELS)), nn.Linear(width, len(LABELS))

    def forward(self, flat: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """`flat` (slices, width), of studies of so many slices -> (slices, 6)."""
        of_studies = zip(self.attend(flat).float().split(lengths), self.say(flat).float().split(lengths), strict=True)
        said = [((attended.softmax(dim=0) * said).sum(dim=0), len(said)) for attended, said in of_studies]
        return torch.cat([logits.expand(slices, -1) for logits, slices in said])
