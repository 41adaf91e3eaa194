"""Test predictions of a trained fold of study, averaged over the eight D4 symmetries.

    python models/infer_study.py --fold 0

Needs runs/study/fold0/ from models/train_study.py, whose config.json says how the network is built, and cache/. Writes
runs/study/fold0/test.parquet.
"""

from models.inference.predict import main

if __name__ == "__main__":
    main("study")
