"""A table of scores of several predictions."""

import pandas as pd

from models.labels import LABELS
from models.training.scoring import WEIGHTED, score, score_prior


def score_table(labels: pd.DataFrame, predictions: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """A row for each named prediction: slices, weighted log loss, the prior's, and the AUC of each label.

    `labels` and predictions are indexed by `image_id` with columns LABELS; only slices that have both count.
    """
    rows = {}
    for name, table in predictions.items():
        common = table.index.intersection(labels.index)
        target = labels.loc[common, list(LABELS)].to_numpy()
        if len(common) == 0:
            rows[name] = {"slices": 0}
            continue
        scores = score(target, table.loc[common].to_numpy())
        aucs = scores[[f"AUC {label}" for label in reversed(LABELS)]]
        rows[name] = {"slices": len(common), WEIGHTED: scores[WEIGHTED], "prior": score_prior(target)[WEIGHTED], **aucs}
    return pd.DataFrame.from_dict(rows, orient="index")
