"""A small residual network at 64 px: the whole path in CPU minutes, for the demo, the tests and people without a GPU.

    python models/train_small.py --fold 0

Needs cache/ from models/prepare.py --image-size 64.
Writes runs/small/fold0/: config.json, model.safetensors, history.csv, history.png, patients.parquet and valid.parquet.
"""

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.preprocessing import windows
from models.training.run import main

CONFIG = TrainConfig(
    name="small",
    network="small",  # 0.3 million parameters
    image_size=64,
    channels=(Channel(0, windows.BRAIN), Channel(0, windows.SUBDURAL), Channel(0, windows.BONE)),
    optimizer="radam",
    max_lr=3e-3,  # from scratch, so thirty times the rate of the finetuned networks
    epochs=14,
    batch_size=16,
    weight_decay=1e-2,  # a hundred times the others': 3,000 slices are soon learnt by heart
    augment="light",  # hard ones ask for more epochs than a CPU has time for
    pretrained=False,  # there are no ImageNet weights for it
)

if __name__ == "__main__":
    main(CONFIG)
