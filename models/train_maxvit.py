"""MaxViT-T on nine channels: three windows of the slice and of the slices 5 mm below and above.

    python models/train_maxvit.py --fold 0    # then --fold 1 ... 4

Needs cache/ from models/prepare.py --image-size 512, and a GPU, whose memory has not been measured.
Writes runs/maxvit/fold0/: config.json, model.safetensors, history.csv, history.png, patients.parquet and valid.parquet.
"""

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.preprocessing import windows
from models.training.run import main

CONFIG = TrainConfig(
    name="maxvit",
    network="timm/maxvit_tiny_tf_512.in1k",  # convolutions, and attention within and across blocks
    image_size=512,  # that of its weights
    channels=tuple(
        Channel(mm, w, "mm") for mm in (-5, 0, 5) for w in (windows.BRAIN, windows.SUBDURAL, windows.SOFT_TISSUE)
    ),
    optimizer="adam",
    max_lr=1e-4,  # that of the other finetuned networks
    epochs=7,
    batch_size=16,
    checkpointing=True,  # at 512 px its activations are most of the memory
    skip_low_information=True,  # 11.7 % of the training slices show almost no brain
)

if __name__ == "__main__":
    main(CONFIG)
