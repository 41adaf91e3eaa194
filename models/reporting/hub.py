"""What others read of a release: README.md and .eval_results/ of Hugging Face, metadata.json of MONAI, timm/ of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResultEntry, ModelCardData, eval_result_entries_to_yaml
from huggingface_hub.utils import yaml_dump

from models.common.config import StudyConfig, TrainConfig
from models.common.files import write_text
from models.common.labels import LABELS
from models.reporting import card_text as words
from models.reporting.traced import find
from models.training.lite0 import MEAN, STD
from models.training.run_record import RunRecord
from models.training.timm_networks import FAMILY, normalisation
from models.training.weights import read_weights, write_tensors

_LICENSES = ("mit", "apache-2.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc0-1.0")
_SCHEMA = "https://project-monai.github.io/schema/meta_schema_20240725.json"
_TASK = "Intracranial hemorrhage on head CT: six probabilities of each slice"
_METRICS = {  # of facts.json: what it is called there
    "auc_any_studies": ("scores", "studies", "any", "AUC"),
    "auc_any_slices": ("scores", "slices", "any", "AUC"),
    "weighted_log_loss": ("scores", "slices", "weighted log loss", "log loss"),
}
_LITE0 = "efficientnet-lite0"
_TIMM = "timm"  # the folder, beside the files of the run


def readme(told: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """README.md, with what Hugging Face reads at its head."""
    known = told["asked"]["license"].lower() in _LICENSES
    dataset = told["asked"]["dataset"]
    tags = ["medical", "head-ct", "intracranial-hemorrhage", "research", *(["synthetic"] if told["synthetic"] else [])]
    data = ModelCardData(
        library_name="timm" if facts["timm"] else "pytorch",
        pipeline_tag="image-classification",
        tags=tags,
        metrics=["roc_auc"],
        license=told["asked"]["license"].lower() if known else "other",
        license_name=None if known else told["asked"]["license"],
        datasets=[dataset] if dataset else None,
    )
    warning = f"**{words.SYNTHETIC}**\n\n" if told["synthetic"] else ""
    return f"""---
{data.to_yaml()}
---
# {told["name"]}: hemorrhage on head CT

{warning}**{words.NOT_A_DEVICE}**

What it is good for, and for whom not, stands in [card.md](card.md), or [card.html](card.html) in a browser; each number
there is followed to its file by `sources.csv`. It is used by the project that has made it:

    predict.py PATH --weights FOLDER

which refuses it if the sha256 of a file is not the one that `release.json` names.
"""


def eval_results(told: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """.eval_results/validation.yaml: out-of-fold scores, each as an entry."""
    dataset = told["asked"]["dataset"] or f"local/{told['name']}-validation"
    note = "out-of-fold scores of the data that it was trained on"
    if told["asked"]["dataset"] is None:
        note += "; that data is no data set of the Hub"
    if told["synthetic"]:
        note += "; synthetic: drawings, not people"
    entries = [
        EvalResultEntry(dataset_id=dataset, task_id=name, value=value, date=told["date"], notes=note)
        for name, place in _METRICS.items()
        if (value := find(facts, place)) is not None
    ]
    return yaml_dump(eval_result_entries_to_yaml(entries))


def monai_metadata(
    told: Mapping[str, Any], facts: Mapping[str, Any], records: Mapping[str, RunRecord]
) -> dict[str, Any]:
    """metadata.json, as MONAI's schema of bundles of 2024-07-25 has it: each network of slices with its input."""
    versions = next(iter(records.values())).versions
    formats = {
        f"{name.replace('/', '_').replace('-', '_').replace('.', '_')}_data_format": _data_format(record.config)
        for name, record in records.items()
        if isinstance(record.config, TrainConfig)
    }
    return {
        "schema": _SCHEMA,
        "version": told["commit"] or told["project"] or "not known",
        "monai_version": "none: it was made without MONAI",
        "pytorch_version": versions.get("torch", "not noted"),
        "numpy_version": versions.get("numpy", "not noted"),
        "required_packages_version": {name: version for name, version in versions.items() if name != "numpy"},
        "task": _TASK,
        "description": f"{words.MECHANISM[0]} {words.SYNTHETIC if told['synthetic'] else ''}".strip(),
        "authors": told["asked"]["contact"],
        "copyright": f"Licence of the weights: {told['asked']['license']}",
        "data_source": told["data_source"],
        "data_type": "dicom",
        "intended_use": told["asked"]["intended_use"],
        "eval_metrics": {name: value for name, place in _METRICS.items() if (value := find(facts, place)) is not None},
        "references": ["doi:10.1148/ryai.2020190211"],
        "network_data_format": next(iter(formats.values())),
        **formats,
    }


def _data_format(config: TrainConfig) -> dict[str, Any]:
    size = config.input_size
    grey = {
        "type": "image",
        "format": "magnitude",
        "modality": "CT",
        "num_channels": len(config.channels),
        "spatial_shape": [size, size],
        "dtype": "uint8",
        "value_range": [0, 255],
        "is_patch_data": False,
        "channel_def": {str(place): f"window {channel}" for place, channel in enumerate(config.channels)},
    }
    logits = {
        "type": "probabilities",
        "format": "classes",
        "num_channels": len(LABELS),
        "spatial_shape": [],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {str(place): f"logit of {label}" for place, label in enumerate(LABELS)},
    }
    return {"inputs": {"image": grey}, "outputs": {"pred": logits}}


def write_timm(folder: Path, record: RunRecord) -> bool:
    """Write timm/ beside the files of a fold, whose trunk timm.create_model("local-dir:...") then builds; or none.

    Whether the network is one of timm's, as timm has it. Raises InputError if it cannot be written.
    """
    config = record.config
    if not isinstance(config, TrainConfig) or isinstance(config, StudyConfig) or config.pooling != "avg":
        return False
    if not (config.network.startswith(FAMILY) or config.network == _LITE0):
        return False
    tensors = read_weights(folder / "model.safetensors")
    trunk = {name.removeprefix("backbone."): value for name, value in tensors.items() if name.startswith("backbone.")}
    write_tensors(folder / _TIMM / "model.safetensors", trunk)
    write_text(
        folder / _TIMM / "config.json", json.dumps(timm_config(config, tensors["head.weight"].shape[1]), indent=2)
    )
    return True


def timm_config(config: TrainConfig, width: int) -> dict[str, Any]:
    """config.json of a trunk as timm's hub has it, without a last layer; `width` is that of its embeddings."""
    lite0 = config.network == _LITE0
    name = "tf_efficientnet_lite0" if lite0 else config.network.removeprefix(FAMILY)
    mean, std = (MEAN, STD) if lite0 else normalisation(config)
    size, channels = config.input_size, len(config.channels)
    return {
        "architecture": name.partition(".")[0],
        "num_classes": 0,
        "num_features": width,
        "model_args": {"in_chans": channels, "num_classes": 0, **_image_size(name, size)},
        "pretrained_cfg": {
            "input_size": [channels, size, size],
            "num_classes": 0,
            "mean": [mean] * channels,
            "std": [std] * channels,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "custom_load": False,
        },
    }


def _image_size(name: str, size: int) -> dict[str, int]:
    """What a network of a fixed size is built with."""
    import timm

    published = timm.get_pretrained_cfg(name, allow_unregistered=False)
    return {"img_size": size} if published is not None and published.fixed_input_size else {}


def facts_of_timm(folder: Path, records: Mapping[str, RunRecord]) -> dict[str, bool]:
    """Write timm/ of each fold that is one of timm's; whether it is, by what it is called. Raises as `write_timm`."""
    return {name: True for name, record in records.items() if write_timm(folder / name, record)}


def write_for_others(
    folder: Path, told: Mapping[str, Any], facts: Mapping[str, Any], records: Mapping[str, RunRecord]
) -> None:
    """Write what others read. Raises InputError if the folder cannot be written to."""
    write_text(folder / "README.md", readme(told, facts))
    write_text(folder / ".eval_results" / "validation.yaml", eval_results(told, facts))
    write_text(folder / "metadata.json", json.dumps(monai_metadata(told, facts, records), indent=1))
