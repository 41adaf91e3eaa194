"""Recurrent layers over the slices of a study, on what the network of a session sees in each slice.

    python models/train_session_sequence.py --fold 0 --budget-hours 2

Needs cache/, and runs/session/fold0/ from models/train_session.py. First stores the embeddings in cache/embeddings/.
Writes runs/session_sequence/fold0/: config.json, model.safetensors, history.csv, history.png, patients.parquet and
valid.parquet.
"""

from models.common.config import SequenceConfig
from models.training.run import main

CONFIG = SequenceConfig(
    name="session_sequence",
    runs=("session",),
    views="flip",  # two views in place of D4's eight: a quarter of the time on a T4
    optimizer="radam",
    max_lr=1e-3,  # from scratch
    epochs=8,
    batch_size=32,  # studies
    weight_decay=1e-2,
    clip_gradient=1.0,  # what goes back through four hundred slices may grow
    shortest=0.5,  # so that it has seen scans that begin and end anywhere
)

if __name__ == "__main__":
    main(CONFIG)
