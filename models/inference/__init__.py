"""Weights -> probabilities -> submission.

predict       the command line, without torch      (fold: the network over the slices; parts: what is done already;
              stored: whether the slices are still those)
runs          the predictions of runs              (predictions, aligned: side by side; unlike: what differs)
blending      runs -> one                          (calibration, stacking; evidence: which way for which label)
blend_run     the same, written down               (blend_options; blend_record: blend.json, which tells how)
smoothing     along z, without training            (smoothed_run: a run of it)
pseudolabels  predictions -> labels to train on    (pseudolabel_files: fold by fold)
scoring       scores with intervals                (comparing: of drawn patients, paired; gained: of two runs)
scored        of what                              (whose: of patients that were trained on, or not)
external      answers to published sets             (external_names, _labels, _tables, _masks, _volumes: what sets say;
              external_answers, _joining, _overlap, _orientation: what may be scored; external_scores: how well)
heat          where a network of slices looked
release       networks as they travel                   (release_options; release_files: made of runs; released_blend)
halving       their weights as float16                  (own_slices: measured on whom; robustness: of changed slices)
joining       the runs of a blend where it is used
default       the network that is used where nobody names one     (default_network/: its files)
default_files two runs -> those files, float16     (default_card: what it is; default_measuring: on people)
submission    a blend -> submission.csv
answering     one study -> its answer           (asked: what of; asked_runs, ensemble: by which networks; combining)
engines       what is asked of torch, or of onnxruntime   (torch_engine, onnx_engine; ensemble chooses)
onnx_export   runs -> graphs                  (onnx_graphs: what is in them; onnx_check, onnx_files)
judging       whether a study can be judged
operating     what probabilities of a run mean  (by its fingerprint: models/training/fingerprint.py)
answer        answer.json, slices.csv, answers.csv
"""
