"""The map. Directly in this folder a verb is run; everything else is a noun and is imported.

make_phantom.py      draws synthetic studies                        -> data/       (a stand-in for the challenge's data)
prepare.py           DICOM files -> metadata, slice store, folds    -> cache/
train_<name>.py      slices -> the weights of a fold                -> runs/<name>/fold<k>/
train_sequence.py    embeddings of a run -> the weights of a fold    -> runs/sequence/fold<k>/
infer_<name>.py      weights -> probabilities of the test slices    -> runs/<name>/fold<k>/test.parquet
make_pseudolabels.py test predictions -> labels to train on         -> cache/pseudolabels_<name>_fold<k>.parquet
smooth.py            predictions -> the same, smoothed along z      -> runs/<name>_smoothed/fold<k>/
score.py             predictions -> a table of scores
find_files.py        predictions -> the same, with the file that each slice of your own came from
blending.ipynb       runs -> submission.csv, blend/                 (in the folder above)
report.py            predictions -> a page to read                  -> report_<name>.html

preprocessing/       DICOM -> Hounsfield slices on disk
training/            slices -> weights
inference/           weights -> probabilities -> submission
labels, paths, config, cli, errors: the facts that all stages share.

Imports run one way: inference -> training -> preprocessing -> the shared facts.
"""
