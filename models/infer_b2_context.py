"""Test predictions of a trained fold of b2_context, averaged over the eight D4 symmetries.

    python models/infer_b2_context.py --fold 0

Needs runs/b2_context/fold0/ from models/train_b2_context.py, whose config.json says how the
network is built, and cache/.
Writes runs/b2_context/fold0/test.parquet.
"""

from models.inference.predict import main

if __name__ == "__main__":
    main("b2_context")
