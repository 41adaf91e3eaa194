"""Can frozen features of a network tell drawn slices from real ones: a classifier's AUC, and the Fréchet distance."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from realism_slices import Slices, head_mask
from scipy.linalg import eigvals
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models import train_lite0
from models.common.channels import Window
from models.preprocessing.windows import BONE, BRAIN, SOFT_TISSUE, SUBDURAL, apply_window
from models.training.networks import build_network, load_initial_weights

WINDOWS = (BRAIN, SUBDURAL, SOFT_TISSUE, BONE)
MEAN, STD = 0.449, 0.226  # of ImageNet, over its colours, as the project's networks have it
WHOLE = 224  # pixels to which a whole slice is brought
PATCH, ENLARGED = 64, 128  # pixels of a patch, and those that the network sees of it
PATCHES = 2  # of a slice
MOSTLY = 0.75  # of a patch must be head
TRIES = 50  # places that are drawn for the patches of a slice
BATCH = 16
HALVINGS = 6  # of the studies, each used both ways
# Of the features, for the Fréchet distance. Between halves of nine studies it grows with them by chance alone: with 64
# even the first phantom, which the classifier knows at sight, is not three times as far from people as they are apart.
DIMENSIONS = 16
WEAK = 0.01  # C of the logistic regression: of .001 to 1 it told the first phantom from people best

Network = Callable[[torch.Tensor], torch.Tensor]  # normalised images (n, 3, side, side) -> features (n, width)
Judged = tuple[np.ndarray, np.ndarray]  # features (n, width), and the study of each


@dataclass(frozen=True)
class Look:
    """Some images that a network is to see through one window."""

    images: list[np.ndarray]  # each (side, side) int16
    window: Window
    network: str = "lite0"  # of NETWORKS


def lite0() -> Network:
    """EfficientNet-Lite0 with ImageNet weights, without its last layer."""
    network = build_network(train_lite0.CONFIG)
    load_initial_weights(network, train_lite0.CONFIG)
    return network.backbone.eval().to(memory_format=torch.channels_last)  # twice as fast


def random_convolutions(width: int = 24) -> Network:
    """Two random convolutions, for tests: fast, and blind to little."""
    torch.manual_seed(0)
    first, second = torch.nn.Conv2d(3, width, 7, stride=4), torch.nn.Conv2d(width, width, 3, stride=2)

    def features(images: torch.Tensor) -> torch.Tensor:
        seen = second(first(images).relu())
        return torch.cat([seen.mean(dim=(2, 3)), seen.std(dim=(2, 3))], dim=1)

    return features


NETWORKS = {"lite0": lite0, "random": random_convolutions}


@torch.inference_mode()
def features_of(look: Look) -> np.ndarray:
    """What a network sees: (images, width) float32. On one core, for others are busy with other looks."""
    torch.set_num_threads(1)
    network, batches = NETWORKS[look.network](), []
    for first in range(0, len(look.images), BATCH):
        grey = np.stack([apply_window(image, look.window) for image in look.images[first : first + BATCH]])
        normalised = (torch.from_numpy(grey).float() / 255 - MEAN) / STD
        colours = normalised[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        batches.append(network(colours).numpy())
    return np.concatenate(batches)


def whole_images(slices: Slices) -> tuple[list[np.ndarray], np.ndarray]:
    """Whole slices at the network's size, and the study of each."""
    images = [cv2.resize(image, (WHOLE, WHOLE), interpolation=cv2.INTER_AREA) for image in slices.hounsfield]
    return images, slices.study


def patch_images(slices: Slices, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Enlarged patches of random places that show the head, up to PATCHES a slice, and the study of each."""
    random, images, studies = np.random.default_rng(seed), [], []
    for hounsfield, study, spacing in zip(slices.hounsfield, slices.study, slices.spacing, strict=True):
        inside = cv2.integral(head_mask(hounsfield, spacing).astype(np.uint8))
        corners = random.integers(0, len(hounsfield) - PATCH + 1, (TRIES, 2))
        good = [corner for corner in corners if share_of_head(inside, *corner) >= MOSTLY]
        for top, left in good[:PATCHES]:
            patch = hounsfield[top : top + PATCH, left : left + PATCH]
            images.append(cv2.resize(patch, (ENLARGED, ENLARGED), interpolation=cv2.INTER_LINEAR))
            studies.append(study)
    return images, np.array(studies)


def share_of_head(inside: np.ndarray, top: int, left: int) -> float:
    """The share of a patch that is head, by the integral (size + 1, size + 1) of its mask."""
    bottom, right = top + PATCH, left + PATCH
    return float(inside[bottom, right] - inside[top, right] - inside[bottom, left] + inside[top, left]) / PATCH**2


def halves(studies: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Masks (n,) of two random halves of the studies."""
    names = random.permutation(np.unique(studies))
    first = np.isin(studies, names[: len(names) // 2])
    return first, ~first


def told_apart(one: Judged, other: Judged, seed: int, halvings: int = HALVINGS) -> list[float]:
    """AUC of a classifier that learns on half of the studies of each to tell one from the other, on the other half."""
    random, scores = np.random.default_rng(seed), []
    for _ in range(halvings):
        parts = zip(halves(one[1], random), halves(other[1], random), strict=True)
        sets = [(np.concatenate([one[0][a], other[0][b]]), np.repeat([0, 1], [a.sum(), b.sum()])) for a, b in parts]
        for (seen, kinds), (unseen, truth) in (sets, sets[::-1]):
            classifier = make_pipeline(
                StandardScaler(), LogisticRegression(C=WEAK, class_weight="balanced", max_iter=500)
            )
            said = classifier.fit(seen, kinds).decision_function(unseen)
            scores.append(float(roc_auc_score(truth, said)))
    return scores


def chance(one: Judged, seed: int) -> tuple[float, float]:
    """The AUC, and the ratio of Fréchet distances, between two halves of the same studies: what is seen by chance.

    About .5 and 1, and each division by itself far from it where studies are few.
    """
    random, scores, apart = np.random.default_rng(seed), [], []
    for number in range(4 * HALVINGS):
        first, second = ((one[0][mask], one[1][mask]) for mask in halves(one[1], random))
        scores += told_apart(first, second, number, halvings=1)
        apart.append(distances(first, second, number))
    across, within = np.mean(apart, axis=0)
    return float(np.mean(scores)), float(across / within)


def distances(one: Judged, other: Judged, seed: int) -> tuple[float, float]:
    """Fréchet distance of half of the studies of `one` to half of those of `other`, and between halves of `other`.

    Halves in both, for the distance grows as the samples get smaller; means of random halvings.
    """
    # As many of both: else the axes would be those of the larger set.
    random, few = np.random.default_rng(seed), min(len(one[0]), len(other[0]))
    sample = np.concatenate([values[random.permutation(len(values))[:few]] for values in (one[0], other[0])])
    axes = PCA(min(DIMENSIONS, *sample.shape), random_state=0).fit(sample)
    values, peers = axes.transform(one[0]), axes.transform(other[0])
    across, within = [], []
    for _ in range(HALVINGS):
        parts = zip(halves(one[1], random), halves(other[1], random), strict=True)
        across += [frechet(values[a], peers[b]) for a, b in parts]
        first, second = halves(other[1], random)
        within.append(frechet(peers[first], peers[second]))
    return float(np.mean(across)), float(np.mean(within))


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """Fréchet distance of two samples (n, dimensions), as if they were normal (Heusel et al. 2017)."""
    spread, peer = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    # The trace of the root of a product is the sum of the roots of its eigenvalues, which are none below 0.
    common = np.sqrt(np.clip(eigvals(spread @ peer).real, 0, None)).sum()
    between = np.square(one.mean(axis=0) - other.mean(axis=0)).sum()
    return float(between + np.trace(spread) + np.trace(peer) - 2 * common)
