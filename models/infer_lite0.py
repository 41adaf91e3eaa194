"""Test predictions of a trained fold of lite0, averaged over the eight D4 symmetries.

    python models/infer_lite0.py --fold 0

Needs runs/lite0/fold0/ from models/train_lite0.py, whose config.json says how the network is built, and cache/.
Writes runs/lite0/fold0/test.parquet.
"""

from models.inference.predict import main

if __name__ == "__main__":
    main("lite0")
