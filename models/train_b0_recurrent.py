"""EfficientNet-B0 and recurrent layers over the slices of a study, trained together: the original's "rcnn".

    python models/train_b0_recurrent.py --fold 0          # then --fold 1 ... 4

Needs cache/ from models/prepare.py --image-size 256.
Writes runs/b0_recurrent/fold0/: config.json, model.safetensors, history.csv, history.png, patients.parquet and
valid.parquet.
"""

from models.common.channels import Channel
from models.common.config import StudyConfig
from models.preprocessing import windows
from models.training.run import main

CONFIG = StudyConfig(
    name="b0_recurrent",
    network="efficientnet-b0",
    image_size=256,
    channels=(Channel(0, windows.BRAIN), Channel(0, windows.SUBDURAL), Channel(0, windows.SOFT_TISSUE)),
    optimizer="radam",
    max_lr=1e-4,
    epochs=10,
    batch_size=4,  # studies: up to 96 slices
    study_slices=24,  # most of a head of 34
    slices_at_once=24,  # the activations of so many fit any card; batch norm sees them together
    clip_gradient=1.0,
)

if __name__ == "__main__":
    main(CONFIG)
