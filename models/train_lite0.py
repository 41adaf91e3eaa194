"""EfficientNet-Lite0 at 128 px from ImageNet weights that need no download, for people without a GPU.

    python models/train_lite0.py --fold 0

Needs cache/ from models/prepare.py --image-size 128.
Writes runs/lite0/fold0/: config.json, model.safetensors, history.csv, history.png, patients.parquet and valid.parquet.
"""

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.preprocessing import windows
from models.training.run import main

CONFIG = TrainConfig(
    name="lite0",
    network="efficientnet-lite0",  # 3.4 million parameters, made for CPUs
    image_size=128,  # a pixel is 2 mm, in which a thin subdural is still seen; 224 cost three times as much
    # no bone window: it shows no blood, and a skull in which a drawing differs most from people
    channels=(Channel(0, windows.BRAIN), Channel(0, windows.SUBDURAL), Channel(0, windows.SOFT_TISSUE)),
    optimizer="adam",
    max_lr=1.5e-3,  # from ImageNet's weights, so half of the small network's; fifteen times that of long trainings
    epochs=4,  # some minutes on a hundred phantom studies
    batch_size=32,
    weight_decay=1e-2,  # as small's: some thousand slices are soon learnt by heart
    augment="randomised",  # it is to learn on drawings, and to forget that they are
)

if __name__ == "__main__":
    main(CONFIG)
