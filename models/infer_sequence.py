"""Test predictions of a trained fold of sequence, the mean over studies as they are and turned upside down.

    python models/infer_sequence.py --fold 0

Needs runs/sequence/fold0/ from models/train_sequence.py, the runs that it builds on, and cache/.
Writes runs/sequence/fold0/test.parquet.
"""

from models.inference.predict import main

if __name__ == "__main__":
    main("sequence")
