"""The six labels of the challenge, in the one order that every array, column and file of this project keeps."""

SUBTYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
LABELS = (*SUBTYPES, "any")
ANY = LABELS.index("any")

# The competition's metric counts `any` twice (Kaggle, "Evaluation" page of the challenge).
METRIC_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 2.0)
