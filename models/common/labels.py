"""The six labels of the challenge, in the one order that every array, column and file of this project keeps."""

SUBTYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
LABELS = (*SUBTYPES, "any")
ANY = LABELS.index("any")

# Columns beside those of the labels where they are pseudolabels: how much each counts in training, 0 ... 1.
LABEL_WEIGHTS = tuple(f"weight_{label}" for label in LABELS)

# The competition's metric counts `any` twice (Kaggle, "Evaluation" page of the challenge).
METRIC_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 2.0)
