"""EfficientNet-B0 at 224 px for free: five folds in a session of Kaggle's with two T4 (kaggle/README.md).

    python models/train_session.py --fold 0 --epochs 5 --budget-hours 11

How many epochs a session holds, models/plan.py --preset session --hours tells; its notebook asks that.

Needs cache/ from models/prepare.py --image-size 224.
Writes runs/session/fold0/: config.json, model.safetensors, history.csv, history.png, patients.parquet, valid.parquet.
"""

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.preprocessing import windows
from models.training.run import main

CONFIG = TrainConfig(
    name="session",
    network="efficientnet-b0",
    image_size=224,  # 36 GB of cache: the scratch of a session holds it
    # One slice: neighbours as channels have shown no gain yet, layers over the study have (docs/neighbours.md).
    channels=(Channel(0, windows.BRAIN), Channel(0, windows.SUBDURAL), Channel(0, windows.SOFT_TISSUE)),
    optimizer="radam",
    max_lr=1e-4,  # b0's
    epochs=5,  # by models/plan.py what 10 hours of two T4 hold, five folds and all that comes after them
    batch_size=48,  # b0's
    skip_low_information=True,  # 11.7 % of the training slices show almost no brain
)

if __name__ == "__main__":
    main(CONFIG)
