"""EfficientNet-B2 at 512 px: the original trained it on all five folds and gave it the largest weight of the blend.

    python models/train_b2.py --fold 0          # then --fold 1 ... 4

Needs cache/ from models/prepare.py --image-size 512.
Writes runs/b2/fold0/: config.json, model.safetensors, history.csv, history.png, patients.parquet and valid.parquet.
"""

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.preprocessing import windows
from models.training.run import main

CONFIG = TrainConfig(
    name="b2",
    network="efficientnet-b2",
    image_size=512,
    channels=(Channel(0, windows.BRAIN), Channel(0, windows.SUBDURAL), Channel(0, windows.SOFT_TISSUE)),
    optimizer="adam",  # the one preset of the original without RAdam
    max_lr=1e-4,
    epochs=7,
    batch_size=56,
)

if __name__ == "__main__":
    main(CONFIG)
