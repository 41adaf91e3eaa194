"""Test predictions of a trained fold of resnext101, averaged over the eight D4 symmetries.

    python models/infer_resnext101.py --fold 0

Needs runs/resnext101/fold0/ from models/train_resnext101.py,
whose config.json says how the network is built, and cache/.
Writes runs/resnext101/fold0/test.parquet.
"""

from models.inference.predict import main

if __name__ == "__main__":
    main("resnext101")
