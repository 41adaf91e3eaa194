"""Test predictions of a trained fold of small, averaged over the eight D4 symmetries.

    python models/infer_small.py --fold 0

Needs runs/small/fold0/ from models/train_small.py, whose config.json says how the network is built, and cache/.
Writes runs/small/fold0/test.parquet.
"""

from models.inference.predict import main

if __name__ == "__main__":
    main("small")
