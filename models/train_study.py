"""EfficientNet-B2 and a transformer over the slices of a study, trained together, from the weights of b2.

    python models/train_study.py --fold 0               # then --fold 1 ... 4

Needs cache/ from models/prepare.py --image-size 512, and runs/b2/fold0/ from models/train_b2.py.
Writes runs/study/fold0/: config.json, model.safetensors, history.csv, history.png, patients.parquet and valid.parquet.
"""

from models.common.channels import Channel
from models.common.config import StudyConfig
from models.preprocessing import windows
from models.training.run import main

CONFIG = StudyConfig(
    name="study",
    network="efficientnet-b2",
    image_size=512,
    channels=(Channel(0, windows.BRAIN), Channel(0, windows.SUBDURAL), Channel(0, windows.SOFT_TISSUE)),
    start="b2",
    cell="transformer",
    layers=2,  # one sees the slices, the next what they have seen
    slice_weight=1,  # this one and the next as in arXiv:2205.07556
    sequence_weight=2,
    optimizer="adam",
    max_lr=1e-4,  # b2's
    epochs=3,  # it begins where b2 has ended
    batch_size=2,  # studies: with about 35 slices each b2's 56, and some
    spacing=4,  # mm: all slices of a 5 mm series, every other one or fewer of a thin one
    study_slices=40,  # a head of 160 mm
    shortest=0.7,  # and such as are cut off
    slices_at_once=8,  # their activations are kept
    batch_statistics=False,  # slices of two studies are too alike
    clip_gradient=1.0,
)

if __name__ == "__main__":
    main(CONFIG)
