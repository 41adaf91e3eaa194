"""Test predictions of a trained fold of session, averaged over the eight D4 symmetries.

    python models/infer_session.py --fold 0

Needs runs/session/fold0/ from models/train_session.py, whose config.json says how the network is built, and cache/.
Writes runs/session/fold0/test.parquet.
"""

from models.inference.predict import main

if __name__ == "__main__":
    main("session")
