"""Test predictions of a trained fold of b0_recurrent, averaged over the eight D4 symmetries.

    python models/infer_b0_recurrent.py --fold 0

Needs runs/b0_recurrent/fold0/ from models/train_b0_recurrent.py, whose config.json says how the network is built, and
cache/. Writes runs/b0_recurrent/fold0/test.parquet.
"""

from models.inference.predict import main

if __name__ == "__main__":
    main("b0_recurrent")
