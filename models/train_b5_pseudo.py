"""EfficientNet-B5 at 512 px: b5 finetuned at a tenth of its rate, with pseudolabelled test slices among the others.

    python models/train_b5_pseudo.py --fold 0

Needs cache/, runs/b5/fold0/, and cache/pseudolabels_pseudo_fold0.parquet from models/make_pseudolabels.py b5.
Writes runs/b5_pseudo/fold0/: config.json, model.safetensors, history.csv, history.png, patients.parquet and
valid.parquet.
"""

from models.common.channels import Channel
from models.common.config import FinetuneConfig
from models.preprocessing import windows
from models.training.run import main

CONFIG = FinetuneConfig(
    name="b5_pseudo",
    start="b5",
    pseudolabels="pseudo",
    network="efficientnet-b5",
    image_size=512,
    channels=(Channel(0, windows.BRAIN), Channel(0, windows.SUBDURAL), Channel(0, windows.SOFT_TISSUE)),
    optimizer="radam",
    max_lr=1e-5,  # a tenth of b5's
    epochs=5,  # half of b5's
    batch_size=12,  # what 16 GB hold in fp16
    skip_low_information=True,  # 11.7 % of the training slices show almost no brain
)

if __name__ == "__main__":
    main(CONFIG)
