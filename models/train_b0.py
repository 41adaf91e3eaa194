"""EfficientNet-B0 at 512 px on the brain, subdural and soft-tissue windows.

    python models/train_b0.py --fold 0

Needs cache/ from models/prepare.py --image-size 512.
Writes runs/b0/fold0/: config.json, model.safetensors, history.csv, history.png, patients.parquet and valid.parquet.
"""

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.preprocessing import windows
from models.training.run import main

CONFIG = TrainConfig(
    name="b0",
    network="efficientnet-b0",
    image_size=512,
    channels=(Channel(0, windows.BRAIN), Channel(0, windows.SUBDURAL), Channel(0, windows.SOFT_TISSUE)),
    optimizer="radam",
    max_lr=1e-4,
    epochs=10,
    batch_size=48,
    skip_low_information=True,  # 11.7 % of the training slices show almost no brain
)

if __name__ == "__main__":
    main(CONFIG)
