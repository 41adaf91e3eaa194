"""Test predictions of a trained fold of session_sequence, the mean over studies as they are and turned upside down.

    python models/infer_session_sequence.py --fold 0

Needs runs/session_sequence/fold0/ from models/train_session_sequence.py, the runs that it builds on, and cache/.
Writes runs/session_sequence/fold0/test.parquet.
"""

from models.inference.predict import main

if __name__ == "__main__":
    main("session_sequence")
