"""Recurrent layers over the slices of a study, on what trained networks see in each slice.

    python models/train_sequence.py --fold 0                    # --runs b2 b5: on the embeddings of both

Needs cache/, and runs/b2/fold0/ from models/train_b2.py. First stores the embeddings in cache/embeddings/, once a fold.
Writes runs/sequence/fold0/: config.json, model.safetensors, history.csv, history.png, patients.parquet and
valid.parquet.
"""

from models.common.config import SequenceConfig
from models.training.run import main

CONFIG = SequenceConfig(
    name="sequence",
    runs=("b2",),
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
