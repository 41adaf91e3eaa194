"""EfficientNet-B2 on three slices: the one 5 mm below, the slice and the one 5 mm above, in the brain window.

    python models/train_b2_triplet.py --fold 0    # then --fold 1 ... 4

Needs cache/ from models/prepare.py --image-size 512.
Writes runs/b2_triplet/fold0/: config.json, model.safetensors, history.csv, history.png, patients.parquet and
valid.parquet.
"""

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.preprocessing import windows
from models.training.run import main

CONFIG = TrainConfig(
    name="b2_triplet",
    network="efficientnet-b2",
    image_size=512,
    channels=(Channel(-5, windows.BRAIN, "mm"), Channel(0, windows.BRAIN), Channel(5, windows.BRAIN, "mm")),
    optimizer="adam",
    max_lr=1e-4,
    epochs=7,
    batch_size=56,
)

if __name__ == "__main__":
    main(CONFIG)
