"""Test predictions of a trained fold of maxvit, averaged over the eight D4 symmetries.

    python models/infer_maxvit.py --fold 0

Needs runs/maxvit/fold0/ from models/train_maxvit.py, whose config.json says how the network is built, and cache/.
Writes runs/maxvit/fold0/test.parquet.
"""

from models.inference.predict import main

if __name__ == "__main__":
    main("maxvit")
