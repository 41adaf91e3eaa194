"""EfficientNet-B0 at 224 px on three narrow windows: the original's fast experiment, kept for the blend.

    python models/train_b0_224.py --fold 0

Needs cache/ from models/prepare.py --image-size 224.
Writes runs/b0_224/fold0/: config.json, model.safetensors, history.csv, history.png, patients.parquet and valid.parquet.
"""

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.preprocessing import windows
from models.training.run import main

CONFIG = TrainConfig(
    name="b0_224",
    network="efficientnet-b0",
    image_size=224,
    channels=(Channel(0, windows.FLUID), Channel(0, windows.TISSUE), Channel(0, windows.CLOT)),
    optimizer="radam",
    max_lr=1e-4,
    epochs=10,
    batch_size=48,
    skip_low_information=True,  # 11.7 % of the training slices show almost no brain
)

if __name__ == "__main__":
    main(CONFIG)
