"""Weights -> probabilities -> submission.

predict       the command line, without torch      (fold: the network over the slices; parts: what is done already)
runs          the predictions of runs              (predictions, aligned: side by side)
blending      runs -> one                          (calibration, stacking; evidence: which way is best)
smoothing     along z, without training            (smoothed_run: a run of it)
pseudolabels  predictions -> labels to train on    (pseudolabel_files: fold by fold)
scoring       scores with intervals
heat          where a network of slices looked
submission    a blend -> submission.csv
"""
