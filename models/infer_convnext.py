"""Test predictions of a trained fold of convnext, averaged over the eight D4 symmetries.

    python models/infer_convnext.py --fold 0

Needs runs/convnext/fold0/ from models/train_convnext.py, whose config.json says how the network is built, and cache/.
Writes runs/convnext/fold0/test.parquet.
"""

from models.inference.predict import main

if __name__ == "__main__":
    main("convnext")
