"""The map. Files in this folder are run, folders are imported.

make_phantom.py      draws synthetic studies                        -> data/       (a stand-in for the challenge's data)
prepare.py           DICOM files -> metadata, slice store, folds    -> cache/
train_<name>.py      slices -> the weights of a fold                -> runs/<name>/fold<k>/
train_sequence.py    embeddings of a run -> the weights of a fold   -> runs/sequence/fold<k>/
train_session.py     for free, on Kaggle; its layers over studies: train_session_sequence.py (kaggle/README.md)
train_study.py       whole studies, from the weights of a run       -> runs/study/fold<k>/
infer_<name>.py      weights -> probabilities of the test slices    -> runs/<name>/fold<k>/test.parquet
make_pseudolabels.py test predictions -> labels to train on         -> cache/pseudolabels_<name>_fold<k>.parquet
smooth.py            predictions -> the same, smoothed along z      -> runs/<name>_smoothed/fold<k>/
score.py             predictions -> a table of scores
find_files.py        predictions -> the same, with the file that each slice of your own came from
plan.py              disk, hours and GPU memory of each step, for a card or as measured here
export_nifti.py      stored series, predictions -> volumes and pictures for a viewer
export_onnx.py       runs -> ONNX, which predict.py takes without torch -> onnx/
blend.py             runs -> submission.csv, blend/                 (blending.ipynb, in the folder above, with pictures)
report.py            predictions -> a page to read                  -> report_<name>.html
release.py           runs, or a blend -> a folder that travels, with its card    -> release/, release.zip
make_default_network.py  drawings -> the network that is used where nobody names one -> inference/default_network/
predict.py           your own head CT -> answers                    -> answers/  (without any of the steps above)

common/              labels, errors, configuration, command lines, folders, files, locks: what all stages share
phantom/             synthetic studies -> DICOM files, with every trap of real data
preprocessing/       DICOM -> Hounsfield slices on disk
training/            slices -> weights
inference/           weights -> probabilities -> submission
reporting/           predictions -> a page that a person reads

Imports run one way: reporting -> inference -> training -> preprocessing -> common; phantom -> preprocessing, common.
"""
