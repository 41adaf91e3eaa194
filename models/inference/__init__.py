"""Weights -> probabilities -> submission.

predict       the command line, without torch      (fold: the network over the slices; parts: what is done already)
runs          the predictions of runs              (predictions, aligned: side by side; unlike: what differs)
blending      runs -> one                          (calibration, stacking; evidence: which way for which label)
smoothing     along z, without training            (smoothed_run: a run of it)
pseudolabels  predictions -> labels to train on    (pseudolabel_files: fold by fold)
scoring       scores with intervals                (comparing: of drawn patients, and paired differences)
submission    a blend -> submission.csv
"""
