"""EfficientNet-B5 at 512 px: the original's best single network.

    python models/train_b5.py --fold 0

Needs cache/ from models/prepare.py --image-size 512.
Writes runs/b5/fold0/: config.json, model.safetensors, history.csv, history.png, patients.parquet and valid.parquet.
"""

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.preprocessing import windows
from models.training.run import main

CONFIG = TrainConfig(
    name="b5",
    network="efficientnet-b5",
    image_size=512,
    channels=(Channel(0, windows.BRAIN), Channel(0, windows.SUBDURAL), Channel(0, windows.SOFT_TISSUE)),
    optimizer="radam",
    max_lr=1e-4,
    epochs=10,
    batch_size=12,  # what 16 GB hold in fp16
    skip_low_information=True,  # 11.7 % of the training slices show almost no brain
)

if __name__ == "__main__":
    main(CONFIG)
