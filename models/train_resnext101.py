"""ResNeXt101_32x4d on a centre crop of 410 of 512 px, in training and in inference.

    python models/train_resnext101.py --fold 0

Needs cache/ from models/prepare.py --image-size 512.
Writes runs/resnext101/fold0/: config.json, model.safetensors, history.csv, history.png, patients.parquet and
valid.parquet.
"""

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.preprocessing import windows
from models.training.run import main

CONFIG = TrainConfig(
    name="resnext101",
    network="resnext101_32x4d",
    image_size=512,
    crop_size=410,  # the head fills it; the corners are air
    channels=(Channel(0, windows.BRAIN), Channel(0, windows.SUBDURAL), Channel(0, windows.SKULL)),
    optimizer="radam",
    max_lr=1e-4,
    epochs=10,
    batch_size=32,
    skip_low_information=True,  # 11.7 % of the training slices show almost no brain
)

if __name__ == "__main__":
    main(CONFIG)
