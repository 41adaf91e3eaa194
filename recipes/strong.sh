#!/bin/sh
# From the challenge's files to a submission, with networks of today: docs/recipe.md tells what it takes.
#
#   recipes/strong.sh              # data/ -> submission.csv; RSNA_DATA and RSNA_WORK name other folders
#   GPUS=8 recipes/strong.sh       # the GPUs of a machine share each fold
#   SMALL=yes recipes/strong.sh    # the same steps on a CPU: two folds of the small network at 64 px, an epoch each
#
# Stop it wherever you like: the same command goes on, and skips what is finished.
set -eu

repository=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$repository/.venv/bin/python}
convnext=timm/convnext_tiny.fb_in22k_ft_in1k_384
gpus=${GPUS:-1}

if [ "${SMALL:-no}" = yes ]; then
    prepared="--image-size 64 --folds 2" folds="0 1"
    slices="--network small --no-pretrained --image-size 64 --epochs 1 --batch-size 16"
    sequence="--epochs 1 --batch-size 4 --hidden 16 --views none"
    study="--network small --image-size 64 --epochs 1"
    gpus=1 # its batches are too small to be divided
else
    prepared="--image-size 384 --folds 5" folds="0 1 2 3 4" # both networks look at 384 px, so one store will do
    slices=""                                               # the presets, as they are
    sequence=""
    study="--network $convnext --image-size 384"
fi

step() { # a script, and its flags
    echo "+ models/$*"
    script=$1
    shift
    "$python" "$repository/models/$script" "$@"
}

on_gpus() { # the same, by all GPUs
    if [ "$gpus" -eq 1 ]; then
        step "$@"
        return
    fi
    echo "+ $gpus x models/$*"
    script=$1
    shift
    "$python" -m torch.distributed.run --standalone --nproc-per-node "$gpus" "$repository/models/$script" "$@"
}

each_fold() {
    for fold in $folds; do on_gpus "$@" --fold "$fold"; done
}

step prepare.py $prepared

# Two networks that look at slices, each its own way, so that their mean is worth more than either.
for network in convnext effnetv2; do
    each_fold train_$network.py $slices
    each_fold infer_$network.py
done

# Recurrent layers over what both see in the slices of a study.
each_fold train_sequence.py --runs convnext effnetv2 $sequence
each_fold infer_sequence.py

# One of them and a transformer over the study, trained on together: by two GPUs at most, for a batch is two studies.
every=$gpus
[ "$gpus" -le 2 ] || gpus=2
each_fold train_study.py --start convnext $study
gpus=$every
each_fold infer_study.py

# Calibrated, and for each label the simplest of the best ways on patients that no part has learnt from.
step score.py
step blend.py
step report.py

echo "Late submission, with Kaggle's client and an account that has accepted the rules:"
echo "  kaggle competitions submit -c rsna-intracranial-hemorrhage-detection -f submission.csv -m strong"
