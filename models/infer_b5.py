"""Test predictions of a trained fold of b5, averaged over the eight D4 symmetries.

    python models/infer_b5.py --fold 0

Needs runs/b5/fold0/ from models/train_b5.py, whose config.json says how the network is built, and cache/.
Writes runs/b5/fold0/test.parquet.
"""

from models.inference.predict import main

if __name__ == "__main__":
    main("b5")
