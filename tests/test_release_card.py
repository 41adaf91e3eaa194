"""Laws of the card of a release: nothing of it is empty, every number can be followed, others can read it."""

import csv
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import jsonschema
import numpy as np
import pytest
import timm
import torch
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.common.errors import InputError
from models.common.files import read_json
from models.common.labels import ANY, LABELS
from models.inference import robustness
from models.inference.answer import row_of
from models.inference.calibration import Calibration
from models.inference.ensemble import Ensemble
from models.inference.external_names import Set
from models.inference.halving import halve
from models.inference.operating import YOUDEN, calibrated, operating_points
from models.inference.own_slices import Own, Said, ask_own, own_slices
from models.inference.release import RUN_FILES, points_from_json, points_to_json
from models.inference.release_options import ReleaseOptions
from models.inference.robustness import CHANGES, change_all, leave_out, make_thick, shift
from models.preprocessing.store import Series
from models.preprocessing.windows import BRAIN, SUBDURAL
from models.reporting import card_text
from models.reporting.card import coded, require_said
from models.reporting.card_fields import Field, Table
from models.reporting.hub import write_timm
from models.reporting.releasing import carry_out
from models.reporting.traced import find
from models.training.fingerprint import EDGES, count_logits
from models.training.networks import build_network
from models.training.run_record import read_run, save_config
from models.training.weights import load_trained, save_weights

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# What MONAI's schema of bundles of 2024-07-25 asks of metadata.json, told in our words.
TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
    "properties": {
        "num_channels": {"type": "integer"},
        "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object"},
        **{name: {"type": "string"} for name in ("type", "format", "dtype")},
    },
}
TEXTS = ("schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors")
TENSORS = {"type": "object", "minProperties": 1, "additionalProperties": TENSOR}
FORMAT = {
    "type": "object",
    "required": ["inputs", "outputs"],
    "properties": {"inputs": TENSORS, "outputs": TENSORS},
}
SCHEMA = {
    "type": "object",
    "required": [*TEXTS, "copyright", "required_packages_version", "network_data_format"],
    "properties": {
        **{name: {"type": "string"} for name in (*TEXTS, "copyright", "data_source", "data_type", "intended_use")},
        **{name: {"type": "object"} for name in ("required_packages_version", "eval_metrics")},
        "references": {"type": "array", "items": {"type": "string"}},
    },
    "patternProperties": {"^[_a-zA-Z0-9]+_data_format$": FORMAT},
}


@pytest.fixture(scope="module")
def released(few, run_folder, tmp_path_factory) -> Path:
    """The release of a small network, of which somebody has said what a card asks for."""
    folder = tmp_path_factory.mktemp("card") / "small_one"
    said = {
        "license": "CC-BY-NC-4.0",
        "contact": "a | b",
        "dataset": "somebody/heads",
        "intended_use": "to `look` <at>",
    }
    carry_out(ReleaseOptions((run_folder.parent.name,), folder, slices=40, work=few.root, device="cpu", **said))
    return folder


@pytest.fixture(scope="module")
def card(released) -> str:
    return (released / "card.md").read_text()


def rows_of(released: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((released / "sources.csv").read_text())))


def test_every_number_of_the_card_is_the_one_at_its_place(released):
    rows, files = rows_of(released), {}
    assert len(rows) > 200
    for row in rows:
        content = files.setdefault(row["file"], json.loads((released / row["file"]).read_text()))
        key = json.loads(row["key"])
        if row["style"] == "name":
            assert row["text"] == key[-1]
            assert find(content, key) is not None
        else:
            assert row["text"] == format(find(content, key), row["style"]), row


def test_no_number_of_the_card_comes_from_nowhere(released, card):
    traced = {number for row in rows_of(released) for number in NUMBER.findall(row["text"])}
    constant = set(NUMBER.findall(Path(card_text.__file__).read_text())) | {"95", "10"}  # of intervals; of the fewest
    body = card.replace("fold0", "fold")
    assert set(NUMBER.findall(body)) - traced - constant == set()
    assert len(traced - constant) > 80


def test_no_field_is_empty_and_both_checklists_are_answered(card):
    _, *parts = re.split(r"^## (.*)\n", card, flags=re.MULTILINE)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    assert all(text.strip() for text in sections.values())
    assert set(card_text.CLAIM) == set(range(1, 45))
    for _, where in [*card_text.CLAIM.values(), *card_text.MODEL_FACTS.items()]:
        section = where.removeprefix(card_text.IN)
        assert section in sections or ", because " in where
    assert not re.search(r"\|\s*\|(?! )|\bNone\b|\bnan\b", card)
    for cell in re.findall(r"(?<=\|)[^|\n]*(?=\|)", card):
        assert cell.strip()


@pytest.mark.parametrize("blocks", [[], [""], [Table(["a"], [])], [Table(["a", "b"], [["1", " "]])]])
def test_an_empty_field_is_refused(blocks):
    require_said([Field("some", ["words", Table(["a"], [["1"]])])])
    with pytest.raises(InputError, match="the card would say nothing under some"):
        require_said([Field("some", blocks)])


def test_what_is_not_measured_is_said_with_the_reason(card):
    for words in ("Energy: not measured, because", "age, sex and scanner's maker: not measured, because"):
        assert words in card
    assert "fewer than 10 of them" in card  # studies of the test
    said = re.findall(r"not measured(.{0,10})", card)
    assert all(re.match(r", (because|since) ", reason) for reason in said)
    assert re.search(r"External testing\n\nNot measured, because", card)


def test_drawings_are_called_synthetic_wherever_one_looks(released, card):
    told = read_json(released / "release.json", "")
    assert told["synthetic"]
    for text in (card, (released / "card.html").read_text(), (released / "README.md").read_text()):
        assert "SYNTHETIC" in text
    assert "synthetic" in (released / ".eval_results" / "validation.yaml").read_text()
    assert "SYNTHETIC" in (released / "metadata.json").read_text()


def test_the_page_holds_what_the_card_holds_and_asks_for_nothing(released, card):
    page = (released / "card.html").read_text()
    assert "default-src 'none'" in page
    assert not re.search(r"<script|<link|<img|\bsrc=|https?://", page)
    assert "to <code>look</code> &lt;at&gt;" in page
    titles = re.findall(r"^## (.*)$", card, flags=re.MULTILINE)
    assert re.findall(r"<h2>(.*)</h2>", page) == titles
    assert page.count("<tr>") == sum(line.startswith("| ") and "| --- |" not in line for line in card.splitlines())
    assert coded("a `<b>` c") == "a <code>&lt;b&gt;</code> c"


def test_the_files_of_the_run_are_there_and_no_more(released):
    assert sorted(path.name for path in (released / "asked" / "fold0").iterdir()) == sorted(RUN_FILES)


def test_robustness_is_measured_for_each_change_beside_the_same_slices(released):
    facts = read_json(released / "facts.json", "")
    assert set(facts["robustness"]) == set(CHANGES)
    assert facts["robustness"]["noise of 20 HU"]["mean move of any"] > 0
    of = facts["measured on"]["slices"]
    assert facts["robustness"]["every third slice missing"]["slices"] < of
    assert facts["robustness"]["slices twice as thick"]["slices"] == pytest.approx(of / 2, abs=2)
    same = [row["weighted log loss as it is"] for name, row in facts["robustness"].items() if "HU" in name]
    assert len(set(same)) == 1


def test_a_network_that_is_right_about_thin_and_thick_slices_loses_nothing_by_thick_ones(few, monkeypatch):
    def say_what_is_there(own: Own, *_: object) -> Said:
        return Said(np.clip(own.target, 0.02, 0.98), np.full(len(own.series), np.nan))

    own = own_slices(few, 0, 80)
    for table in own.series:
        table["any"] = np.arange(len(table)) // 3 % 2  # every other joint lies between blood and none
    monkeypatch.setattr(robustness, "ask_own", say_what_is_there)
    looking = SimpleNamespace(image_sizes={64})
    scores, _ = robustness.measure_changes(own, [looking], None, "cpu")
    for score in scores.values():
        assert score["weighted log loss as it is"] == pytest.approx(score["weighted log loss"])
        assert (score["AUC any as it is"], score["AUC any"], score["mean move of any"]) == (1, 1, 0)


def test_what_the_card_sends_its_readers_to_is_there(released, card):
    text = " ".join(card.split())
    assert text.count("`models/score.py --external`") == text.count("models/score.py") == 2
    assert text.count("in four published sets") == 2
    assert len(get_args(Set)) == 4
    refused = dict.fromkeys(("study_probability", "any_range"), None)
    empty = dict.fromkeys(("study", "verdict", "series", "patient", "synthetic"), "")
    row = row_of(refused | empty | {"slices": [], "operating_points": {}, "reasons": []}, "")
    (column,) = re.findall(r"the column `(\w+)` of `answers.csv`", text)
    assert column in row


def test_changes_are_what_they_say():
    values = np.arange(5.0)[:, None, None] * np.ones((5, 4, 4))
    assert shift(10.0, values, 0).values == pytest.approx(values + 10)
    assert leave_out(3, values, 0).kept == [0, 1, 3, 4]
    assert (leave_out(3, values, 0).values[:, 0, 0] == [0, 1, 3, 4]).all()
    thick = make_thick(values, 0)
    assert thick.kept == [0, 2]
    assert (thick.values[:, 0, 0] == [0.5, 2.5]).all()
    noisy = CHANGES["noise of 20 HU"](np.zeros((9, 64, 64)), 1).values
    assert noisy.std() == pytest.approx(20, rel=0.05)


def test_the_best_youden_is_the_best_of_all_thresholds():
    rng = np.random.default_rng(0)
    said = [rng.normal(-1, 1.5, 400), rng.normal(1, 1.5, 300)]
    counts = np.stack([np.bincount(np.digitize(one, EDGES), minlength=len(EDGES) + 1) for one in said])
    points = operating_points(counts, Calibration(1.0, 0.0), 30, 40)
    sums = [(said[1] >= edge).mean() + (said[0] < edge).mean() for edge in EDGES]
    best = points[YOUDEN]
    assert best.sensitivity.value + best.specificity.value == pytest.approx(max(sums))
    assert best.threshold == pytest.approx(1 / (1 + np.exp(-EDGES[int(np.argmax(sums))])))
    assert points["sensitivity"].sensitivity.value >= 0.95
    assert points["specificity"].specificity.value >= 0.95
    for point in points.values():
        assert point.sensitivity.low <= point.sensitivity.value <= point.sensitivity.high
    points = {"slices": {"any": points}, "studies": {"any": {}}}
    assert points_from_json(json.loads(json.dumps(points_to_json(points)))) == points


@pytest.mark.parametrize(("wrong", "missing"), [(0, "specificity"), (1, "sensitivity")])
def test_a_level_that_no_threshold_reaches_is_not_told_of(wrong, missing):
    """Of those with or without blood a third is as surely called the opposite as can be counted."""
    counts = np.zeros((2, len(EDGES) + 1), int)
    counts[0, 5], counts[1, -5] = 20, 20
    counts[wrong] //= 2
    counts[wrong, 0 if wrong else -1] = 10
    points = operating_points(counts, Calibration(1.0, 0.0), 20, 20)
    assert {"sensitivity", "specificity", YOUDEN} - set(points) == {missing}


def test_an_alarm_goes_off_as_often_as_it_is_told_where_a_type_is_more_probable_than_any():
    rng = np.random.default_rng(0)
    target = np.repeat(rng.random((4000, 1)) < 0.4, len(LABELS), axis=1).astype(float)
    probability = 1 / (1 + np.exp(-(rng.normal(size=target.shape) + 2 * (target - 0.5))))
    counts = {label: np.array(both) for label, both in count_logits(target, probability).items()}
    calibrations = {label: Calibration(1.0, 0.0) for label in LABELS}
    said, bled = calibrated(probability, calibrations), target[:, ANY] == 1
    for point in operating_points(counts["any"], calibrations["any"], 1000, 1000).values():
        alarm = said[:, ANY] >= point.threshold
        assert alarm[bled].mean() == pytest.approx(point.sensitivity.value, abs=1e-9)
        assert (~alarm[~bled]).mean() == pytest.approx(point.specificity.value, abs=1e-9)
    assert (said <= said[:, [ANY]]).all()
    assert (probability.argmax(axis=1) != ANY).any()


# ---- others can read it ----


def test_monai_can_read_what_it_is(released):
    metadata = json.loads((released / "metadata.json").read_text())
    jsonschema.validate(metadata, SCHEMA)
    channels = metadata["network_data_format"]["inputs"]["image"]["channel_def"]
    assert len(channels) == len(read_run(released / "asked" / "fold0").config.channels)
    assert list(metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values())[-1] == "logit of any"
    for name in SCHEMA["required"]:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({other: value for other, value in metadata.items() if other != name}, SCHEMA)


def test_hugging_face_can_read_what_it_is(released):
    data = ModelCard((released / "README.md").read_text()).data
    assert (data.license, data.datasets) == ("cc-by-nc-4.0", ["somebody/heads"])
    assert "synthetic" in data.tags
    entries = parse_eval_result_entries(yaml.safe_load((released / ".eval_results" / "validation.yaml").read_text()))
    facts = read_json(released / "facts.json", "")
    values = {entry.task_id: entry.value for entry in entries}
    assert values["auc_any_slices"] == facts["scores"]["slices"]["any"]["AUC"]
    assert {entry.dataset_id for entry in entries} == {"somebody/heads"}


@pytest.mark.parametrize("network", ["timm/resnet10t", "timm/convnext_atto", "efficientnet-lite0"])
def test_timm_builds_the_same_trunk(network, tmp_path, monkeypatch):
    channels = (Channel(0, BRAIN), Channel(0, SUBDURAL), Channel(1, BRAIN))
    if network.startswith("timm/"):
        channels = (*channels, Channel(-1, BRAIN))
    shared = {"optimizer": "adam", "max_lr": 1e-3, "epochs": 1, "batch_size": 2, "pretrained": False}
    config = TrainConfig(name="trunk", network=network, image_size=64, channels=channels, **shared)
    torch.manual_seed(0)
    own = build_network(config).eval()
    save_weights(tmp_path / "run", own)
    save_config(tmp_path / "run", config, 0, {})
    halve(tmp_path / "run", tmp_path / "out")
    record = read_run(tmp_path / "out")
    load_trained(tmp_path / "out", record, own)
    assert write_timm(tmp_path / "out", record)
    theirs = timm.create_model(f"local-dir:{tmp_path / 'out' / 'timm'}", pretrained=True).eval()
    grey = torch.randint(0, 256, (2, len(channels), 64, 64), dtype=torch.uint8)
    described = theirs.pretrained_cfg
    mean, std = (torch.tensor(described[name])[:, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        due = own.embed(grey)
        torch.testing.assert_close(theirs((grey / 255 - mean) / std), due, atol=1e-4, rtol=1e-4)
    assert described["input_size"] == (len(channels), 64, 64)


def test_what_timm_does_not_have_gets_no_folder_of_it(released):
    assert not write_timm(released / "asked" / "fold0", read_run(released / "asked" / "fold0"))
    assert not any(released.rglob("timm"))


NO_MEMORY = "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to ..."


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (RuntimeError("sizes do not match"), InputError, "cannot look at their own validation .*train them anew"),
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError, "CUDA out of memory"),
        (RuntimeError(NO_MEMORY), RuntimeError, "can't allocate memory"),
    ],
)
def test_memory_that_runs_out_says_nothing_against_the_networks(few, monkeypatch, error, raised, said):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Ensemble, "ask", fail)
    monkeypatch.setattr(Ensemble, "__init__", lambda *_: None)
    with pytest.raises(raised, match=said):
        ask_own(own_slices(few, 0, 40), [], None, "cpu")


def test_a_thick_slice_has_what_either_of_its_parts_has(few, tmp_path):
    own = own_slices(few, 0, 40)
    assert own.series[0]["any"].max() == 1  # by turns, the first has blood
    own.series[0]["any"] = np.arange(len(own.series[0])) % 2
    changed, rows = change_all(own, [64], make_thick, str(tmp_path))
    table, thick = own.series[0], changed.series[0]
    for place in range(len(thick)):
        pair = table.iloc[[2 * place, 2 * place + 1]]
        assert (thick[list(LABELS)].iloc[place] == pair[list(LABELS)].max()).all()
        assert thick["z"].iloc[place] == pytest.approx(pair["z"].mean())
    assert (own.slices["image_id"].to_numpy()[rows[:, 0]] == changed.slices["image_id"]).all()
    assert (thick["any"] == 1).all()
    before, after = (
        np.stack(Series(one.work.series(64, table["series_id"].iloc[0])).read_some([0, 1])) for one in (own, changed)
    )
    assert after[0] == pytest.approx(before.mean(axis=0), abs=0.5)
