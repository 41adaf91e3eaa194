"""EfficientNetV2-S at 384 px, from weights of ImageNet-21k.

    python models/train_effnetv2.py --fold 0    # then --fold 1 ... 4

Needs cache/ from models/prepare.py --image-size 384, and a GPU, whose memory has not been measured.
Writes runs/effnetv2/fold0/: config.json, model.safetensors, history.csv, history.png, patients.parquet and
valid.parquet.
"""

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.preprocessing import windows
from models.training.run import main

CONFIG = TrainConfig(
    name="effnetv2",
    network="timm/tf_efficientnetv2_s.in21k_ft_in1k",
    image_size=384,  # at which its weights were tested; they were trained at 300
    channels=(Channel(0, windows.BRAIN), Channel(0, windows.SUBDURAL), Channel(0, windows.SOFT_TISSUE)),
    optimizer="adam",
    max_lr=1e-4,  # that of the other finetuned networks
    epochs=7,
    batch_size=32,
    skip_low_information=True,  # 11.7 % of the training slices show almost no brain
)

if __name__ == "__main__":
    main(CONFIG)
