"""Test predictions of a trained fold of b5_pseudo, averaged over the eight D4 symmetries.

    python models/infer_b5_pseudo.py --fold 0

Needs runs/b5_pseudo/fold0/ from models/train_b5_pseudo.py, whose config.json says how the
network is built, and cache/.
Writes runs/b5_pseudo/fold0/test.parquet.
"""

from models.inference.predict import main

if __name__ == "__main__":
    main("b5_pseudo")
