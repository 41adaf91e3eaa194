"""Test predictions of a trained fold of effnetv2, averaged over the eight D4 symmetries.

    python models/infer_effnetv2.py --fold 0

Needs runs/effnetv2/fold0/ from models/train_effnetv2.py, whose config.json says how the network is built, and cache/.
Writes runs/effnetv2/fold0/test.parquet.
"""

from models.inference.predict import main

if __name__ == "__main__":
    main("effnetv2")
