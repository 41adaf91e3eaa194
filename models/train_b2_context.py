"""EfficientNet-B2 on the three windows of B2 and, beside them, the brain window of the slices 5 mm below and above.

    python models/train_b2_context.py --fold 0    # then --fold 1 ... 4

Needs cache/ from models/prepare.py --image-size 512.
Writes runs/b2_context/fold0/: config.json, model.safetensors, history.csv, history.png, patients.parquet and
valid.parquet.
"""

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.preprocessing import windows
from models.training.run import main

CONFIG = TrainConfig(
    name="b2_context",
    network="efficientnet-b2",
    image_size=512,
    channels=(
        *(Channel(0, window) for window in (windows.BRAIN, windows.SUBDURAL, windows.SOFT_TISSUE)),
        *(Channel(offset, windows.BRAIN, "mm") for offset in (-5, 5)),
    ),
    optimizer="adam",
    max_lr=1e-4,
    epochs=7,
    batch_size=56,
)

if __name__ == "__main__":
    main(CONFIG)
