"""The words of a card that are the same on each: what it is, its limits, and where two checklists are answered.

Model Facts: Sendak, Gao, Brajer and Balu, npj Digital Medicine 2020, doi:10.1038/s41746-020-0253-3.
CLAIM 2024: Tejani and others, Radiology: Artificial Intelligence 2024, doi:10.1148/ryai.240300.
"""

NOT_A_DEVICE = "Research software, not a medical device: do not base a decision about a patient on it."
SYNTHETIC = (
    "SYNTHETIC: it has learnt from drawings of make_phantom.py, and every number on this card was measured on "
    "drawings. Nobody was scanned; none of the numbers holds for a person."
)
CHALLENGE = (
    "RSNA Intracranial Hemorrhage Detection, Kaggle 2019: head CT of patients of several institutions in three "
    "countries, without names. The rules of the challenge allow academic and non-commercial use; Flanders and others, "
    "Radiology: Artificial Intelligence 2020, doi:10.1148/ryai.2020190211"
)
CHALLENGE_LABELS = (
    "Neuroradiologists of the ASNR have labelled each slice, one reader a study in the training data and three in the "
    "test data (doi:10.1148/ryai.2020190211). How far readers differ on these slices was not measured, because the "
    "labels hold one answer a slice."
)
DRAWN = "drawings of make_phantom.py, MIT as this project; synthetic"
DRAWN_LABELS = "Labels are known, since the bleeds were drawn: synthetic, and no reader has looked at them."
OWN_LABELS = (
    "Labels are those that came with the slices. Who has set them is told under Data, by whoever has released it."
)
EXTERNAL = (
    "Not measured, because this command is given no other data than that of the training. `models/score.py --external` "
    "measures it in four published sets, at the thresholds of this release, which are not fitted again."
)
ENERGY = "Energy: not measured, because neither training nor this command reads a power meter."
DEMOGRAPHICS = (
    "By age, sex and scanner's maker: not measured, because the cache holds nothing of a header that tells of a person "
    "or an institution."
)
LIMITS = (
    "It answers for axial slices of non-contrast head CT alone. Scores elsewhere are lower than on the own validation: "
    "of published networks AUC fell from .98 to .84 in another hospital.",
    "A label is of a slice, so a score of studies is that of their highest slice, and no outline of a bleed is given.",
    "Epidural hemorrhage is rare in every set of slices: its figures rest on few patients.",
    "A network of the same training differs with its seed; how far was not measured, since one training was released.",
    "What it has learnt from, and who is missing there, is not known beyond what stands under Data.",
)
WARNINGS = (
    "Not for children, for CT with contrast agent, for other parts of the body, for pictures of pictures, or after "
    "surgery: none of these was looked at.",
    "Not to rule out hemorrhage, to choose a treatment, or to put a patient at the end of a list.",
    "Stop using it where `predict.py` refuses or warns often, where a scanner or a protocol changes, or where its "
    "alarms and the readers' findings drift apart.",
)
DIRECTIONS = (
    "`predict.py PATH --weights FOLDER` answers studies; `infer_<name>.py --weights FOLDER` predicts the slices of a "
    "cache. Both check each file by its sha256 first.",
    "Before use: answer labelled studies of your own, compare the column `alarm` of `answers.csv` with the labels, and "
    "have somebody responsible look at what it misses. `models/score.py --external` measures it at its frozen "
    "thresholds in four published sets.",
)
MECHANISM = (
    "Outcome: whether a slice of head CT shows epidural, intraparenchymal, intraventricular, subarachnoid or subdural "
    "hemorrhage, or any of them. Output: six probabilities a slice, and six a study.",
    "Input: axial slices in Hounsfield units, as a scanner writes them (DICOM or NIfTI), read right after the scan. "
    "Nothing else of the patient is used.",
    "Target population: patients whose head is scanned without contrast agent. Model type: deep learning, "
    "convolutional or other networks of slices, and where it says so recurrent layers over the slices of a study.",
)
PREPROCESSING = (
    "DICOM to Hounsfield units, wrapped values repaired, clipped to the range of the store, slices ordered by "
    "position, made square and resized to the size of the network, then cut to its windows and scaled to grey "
    "values. No patient data leaves the headers but what orders slices; names become keys. Slices that cannot be "
    "read have the mean of their neighbours. All of it is code of this project, at the commit below."
)
SELECTED = (
    "Slices were taken if they are axial head CT with labels; slices that show almost no brain were left out of "
    "training where the configuration says so, never out of validation. No sample size was computed before."
)
SPLIT = (
    "Patients, never slices or studies, were dealt into folds: nobody is in two of them. A fold is scored by networks "
    "that have not trained on it, and all scores here are out-of-fold. Such scores chose the epoch that is kept, and "
    "the blend: it was internal testing, and there is no further test set."
)
OUTSIDE = (
    "`predict.py` compares what the network sees in a study with what it saw in its validation, as a Mahalanobis "
    "distance; a study that is more than three times as far as the farthest series of that gets a warning. It refuses "
    "what is no head, and warns of contrast agent, metal, gaps and sharp kernels."
)
EXPLAINED = (
    "`predict.py` shows where the network looked, as heat over the most suspicious slices. It is no outline of a "
    "bleed, and how well readers are served by it was not measured, because no reader was asked."
)

IN = "see "
CLAIM = {  # item: what is asked for, in our words, and where it stands
    1: ("names the technology", IN + "Summary"),
    2: ("summary", IN + "Summary"),
    3: ("background and clinical role", IN + "Intended use"),
    4: ("aims", IN + "Intended use"),
    5: ("prospective or retrospective", IN + "Data"),
    6: ("goal", IN + "Intended use"),
    7: ("sources of data", IN + "Data"),
    8: ("who was included", IN + "Data"),
    9: ("preprocessing", IN + "Preprocessing"),
    10: ("subsets", IN + "Data"),
    11: ("de-identification", IN + "Preprocessing"),
    12: ("missing data", IN + "Preprocessing"),
    13: ("acquisition", IN + "Subgroups"),
    14: ("reference standard", IN + "Labels"),
    15: ("why this one", IN + "Labels"),
    16: ("annotators", IN + "Labels"),
    17: ("annotation of the test set", IN + "Labels"),
    18: ("agreement of annotators", IN + "Labels"),
    19: ("partitions", IN + "Folds"),
    20: ("on which level they are disjoint", IN + "Folds"),
    21: ("sample size", IN + "Data"),
    22: ("architecture", IN + "Architecture"),
    23: ("software", IN + "How it was made"),
    24: ("initial weights", IN + "Architecture"),
    25: ("training", IN + "Training"),
    26: ("how the final one was chosen", IN + "Folds"),
    27: ("ensemble", IN + "Architecture"),
    28: ("metrics", IN + "Scores of slices"),
    29: ("uncertainty", IN + "Scores of slices"),
    30: ("robustness", IN + "Robustness"),
    31: ("explanations", IN + "Out of distribution"),
    32: ("internal testing", IN + "Folds"),
    33: ("external testing", IN + "External testing"),
    34: ("trial registration", "not applicable, because it is no clinical trial"),
    35: ("numbers of included and excluded", IN + "Data"),
    36: ("demographics", IN + "Subgroups"),
    37: ("performance, in subgroups too", IN + "Subgroups"),
    38: ("accuracy with intervals", IN + "Operating points"),
    39: ("failures", IN + "Failure cases"),
    40: ("limitations", IN + "Limits"),
    41: ("implications for practice", IN + "Intended use"),
    42: ("full protocol", IN + "How it was made"),
    43: ("availability", IN + "Licence"),
    44: ("funding", "not known, because no file of a run tells it; ask the contact under Licence"),
}
MODEL_FACTS = {  # field of the label: where it stands
    "Model name, locale, approval, last update, version": IN + "Summary",
    "Summary": IN + "Summary",
    "Mechanism": IN + "How it works",
    "Validation and performance": IN + "Scores of studies",
    "Uses and directions": IN + "Use",
    "Warnings": IN + "Warnings",
    "Other information": IN + "Licence",
}
