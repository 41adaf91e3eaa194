"""Laws of the networks as ONNX: they say what torch says, whatever the network, and are what they were written as."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from scipy.special import expit
from torch import nn

from models import export_onnx, train_sequence, train_small
from models.common.channels import Channel, Window
from models.common.config import StudyConfig, TrainConfig
from models.common.errors import InputError
from models.common.labels import ANY, LABELS
from models.export_onnx import ExportOptions
from models.inference import onnx_export, onnx_graphs
from models.inference.asked_runs import Study, find_folds
from models.inference.ensemble import Ensemble
from models.inference.heat import features_with_places
from models.inference.onnx_check import EXACT
from models.inference.onnx_engine import OnnxEngine, count_planes, plane_of
from models.inference.onnx_export import half_weights, precise_nodes, to_onnx
from models.inference.onnx_files import NOTES, SLICES
from models.inference.onnx_graphs import LayersGraph, SlicesGraph, feature_weights
from models.preprocessing.hounsfield import HOUNSFIELD_RANGE
from models.preprocessing.tables import read_slices
from models.preprocessing.windows import apply_window
from models.training.networks import HemorrhageNetwork, build_network
from models.training.recurrent import RecurrentLayers
from models.training.run_record import save_config
from models.training.weights import save_weights

CHANNELS = tuple(Channel.parse(text) for text in ("40/80", "80/200@-1", "40/380"))


def config_of(network: str, size: int = 64, **fields) -> TrainConfig:
    """A network that sees a slice and the one below."""
    shared = {"name": "made", "network": network, "image_size": size, "channels": CHANNELS, "pretrained": False}
    return replace(train_small.CONFIG, **shared | fields)


def awake(config: TrainConfig) -> HemorrhageNetwork:
    """Random weights whose features do not fade from layer to layer, and whose answers differ from slice to slice."""
    torch.manual_seed(0)
    network = build_network(config)
    norm = nn.modules.batchnorm._BatchNorm
    for module in network.modules():
        if isinstance(module, norm):
            module.momentum = None  # the mean of all that is seen
        # The ends of ResNeXt's hundred layers: with as much from each of them rounding itself becomes noise.
        if [type(part) for part in module.children()] == [nn.Sequential, nn.Conv2d, nn.BatchNorm2d]:
            nn.init.constant_(module[-1].weight, 0.2)
    images = grey(config, hounsfield(config))
    with torch.no_grad():
        network.train()(images)
        logits = network.eval()(images)
        network.head.weight /= logits.std(dim=0)[:, None]
        network.head.bias.copy_((network.head.bias - logits.mean(dim=0)) / logits.std(dim=0))
    return network


def hounsfield(config: TrainConfig, slices: int = 5) -> torch.Tensor:
    """All values that the store may hold, and some that it may not."""
    torch.manual_seed(1)
    low, high = HOUNSFIELD_RANGE
    size = config.input_size
    coarse = torch.rand(slices, count_planes(config), 9, 9) * (high - low) + low
    fine = nn.functional.interpolate(coarse, (size, size), mode="bilinear") + 40 * torch.randn(1, 1, size, size)
    return fine.round().to(torch.int16)


def grey(config: TrainConfig, images: torch.Tensor) -> torch.Tensor:
    """What torch's network is given of the same: windows as the dataset applies them."""
    planes = images.clamp(*HOUNSFIELD_RANGE).numpy()
    pairs = list(zip(plane_of(config), config.channels, strict=True))
    slices = [
        [apply_window(planes[row, plane], channel.window) for plane, channel in pairs] for row in range(len(planes))
    ]
    return torch.from_numpy(np.array(slices))


def session(graph: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph.SerializeToString(), options)


def exported(network: HemorrhageNetwork, config: TrainConfig) -> onnx.ModelProto:
    images = hounsfield(config, 2)
    weigh = feature_weights(network, SlicesGraph(network, config).images(images))
    outputs = ["embedding", "logits", *(["heat"] if weigh is not None else [])]
    return to_onnx(SlicesGraph(network, config, weigh), {"hounsfield": images}, outputs)


# ---- graphs ----

NETWORKS = [
    "small",
    "efficientnet-lite0",
    "efficientnet-b0",
    pytest.param("efficientnet-b2", marks=pytest.mark.slow),
    pytest.param("resnext101_32x4d", marks=pytest.mark.slow),
    "timm/resnet18",
]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_as_onnx_says_what_torch_says(name, monkeypatch):
    require_equal_answers(name, monkeypatch)


def require_equal_answers(name: str, monkeypatch) -> tuple[onnx.ModelProto, torch.Tensor]:
    """The graph of a network, which says what torch says, and the Hounsfield values that both were shown."""
    monkeypatch.setattr(onnx_graphs, "LEAST", 2)  # at 64 px the last features of most have no more places
    config = config_of(name)
    network = awake(config)
    graph, images = exported(network, config), hounsfield(config)
    with torch.no_grad():
        due = network(grey(config, images)).sigmoid().numpy()
    embedding, logits, heat = session(graph).run(["embedding", "logits", "heat"], {"hounsfield": images.numpy()})
    assert np.ptp(due, axis=0).min() > 0.1  # it does look at them
    assert np.abs(expit(logits) - due).max() < EXACT
    assert embedding.shape == (5, network.width)
    looked = grad_cam(network, grey(config, images))
    assert looked.max() > 0
    assert np.abs(heat - looked).max() < 1e-3 * looked.max()
    assert [one.version for one in graph.opset_import if one.domain == ""] == [18]
    return graph, images


def grad_cam(network: HemorrhageNetwork, images: torch.Tensor) -> np.ndarray:
    """Of the last features, by their gradient: (slices, rows, columns)."""
    features, seen = features_with_places(network.backbone, (images.float() / 255 - network.mean) / network.std)
    last = features[-1].values
    (gradient,) = torch.autograd.grad(network.head(seen)[:, ANY].sum(), last)
    return (gradient.mean(dim=(2, 3), keepdim=True) * last).sum(dim=1).relu().detach().numpy()


def test_a_network_whose_last_features_have_few_places_has_no_heat():
    network = build_network(config_of("timm/resnet18")).eval()
    for size, has_heat in ((6 * 32, False), (7 * 32, True)):
        assert (feature_weights(network, torch.rand(2, len(CHANNELS), size, size)) is not None) == has_heat


def test_a_network_that_learns_how_to_pool_has_no_heat(monkeypatch):
    monkeypatch.setattr(onnx_graphs, "LEAST", 2)
    config = config_of("timm/resnet18", pooling="gem")
    network = awake(config)
    assert [output.name for output in exported(network, config).graph.output] == ["embedding", "logits"]


@pytest.mark.parametrize("window", [Window(40, 80), Window(600, 2800), Window(33.3, 77.7)])
def test_windows_are_those_of_the_dataset_to_the_last_grey_value(window):
    config = config_of("small", channels=(Channel(0, window),))
    graph = SlicesGraph(build_network(config), config)
    units = np.arange(HOUNSFIELD_RANGE[0] - 5, HOUNSFIELD_RANGE[1] + 6, dtype=np.int16)[None, None, None]
    due = torch.from_numpy(apply_window(units[0, 0].clip(*HOUNSFIELD_RANGE), window)).float() / 255
    found = graph.images(torch.from_numpy(units))[0, 0] * graph.network.std + graph.network.mean
    assert (255 * (found - due)).abs().max() < 1e-3


@pytest.mark.parametrize("cell", ["gru", "lstm", "transformer"])
@pytest.mark.parametrize("slices", [1, 2, 40])
def test_layers_as_onnx_say_what_torch_says_of_studies_of_any_length(cell, slices, layers):
    torch_layers, ours = layers(cell)
    torch.manual_seed(slices)
    seen, z = torch.randn(slices, 2 * 10 + 2 * len(LABELS)), torch.rand(slices).mul(9).cumsum(0)
    place = torch.stack([torch.zeros(slices), z, torch.full((slices,), 12.0)], dim=1)
    with torch.no_grad():
        due = torch_layers(seen, place).sigmoid().numpy()
    (logits,) = ours.run(["logits"], {"seen": seen.numpy(), "place": place.numpy()})
    assert np.abs(expit(logits) - due).max() < EXACT
    turned = ours.run(["logits"], {"seen": seen.flip(0).numpy(), "place": place.flip(0).numpy()})[0][::-1]
    assert slices == 1 or np.abs(expit(turned) - due).max() > EXACT  # or it does not look at the neighbours


class OneByOne(nn.Module):
    """Of as many slices as it is shown first, as a recurrence that torch has unrolled."""

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return torch.stack([row * 2 for row in seen])


class WithoutWord(nn.Module):
    """What ONNX has no operator for."""

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(seen)


@pytest.mark.parametrize(
    ("enough", "repair"),
    [("1.13", "predict with torch, --engine torch"), ("99.0", "export it with torch 99.0 or newer")],
)
@pytest.mark.parametrize("network", [OneByOne(), WithoutWord()], ids=lambda network: type(network).__name__)
def test_what_this_torch_cannot_write_is_refused_with_the_repair(monkeypatch, network, enough, repair):
    monkeypatch.setattr(onnx_export, "WRITES_ALL", enough)
    message = f"torch {torch.__version__} cannot write this network as ONNX; {repair}"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        to_onnx(network, {"seen": torch.zeros(7, 3)}, ["logits"])


@pytest.fixture(scope="module")
def layers() -> Callable:
    """Layers over two networks, and the same as ONNX; each kind is exported once."""
    made: dict[str, tuple] = {}

    def of(cell: str) -> tuple[RecurrentLayers, onnxruntime.InferenceSession]:
        if cell not in made:
            torch.manual_seed(2)
            config = replace(train_sequence.CONFIG, runs=("a", "b"), cell=cell, hidden=8, layers=2)
            network = RecurrentLayers(20, 2, config).eval()
            nn.init.normal_(network.leave.weight)
            seen, place = torch.zeros(7, 32), torch.zeros(7, 3)
            made[cell] = network, session(to_onnx(LayersGraph(network), {"seen": seen, "place": place}, ["logits"]))
        return made[cell]

    return of


def test_the_trunk_as_onnx_too_and_its_halves_are_half_the_size_and_what_is_small_stays_exact(monkeypatch):
    graph, images = require_equal_answers("efficientnet-lite0-trunk", monkeypatch)
    half = half_weights(graph)
    assert half.ByteSize() < 0.6 * graph.ByteSize()
    halved = [tensor for tensor in half.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16]
    assert len(halved) > 30
    assert all(len(tensor.dims) > 1 for tensor in halved)  # no bias, and no table of a window
    due, found = (expit(session(one).run(["logits"], {"hounsfield": images.numpy()})[0]) for one in (graph, half))
    assert 0 < np.abs(due - found).max() < 0.2  # of random weights: those of a trained network lose less
    kept = [node for node in graph.graph.node if node.name in precise_nodes(graph)]
    assert {node.op_type for node in kept} == {"Conv"}
    assert len(kept) == 1 + 15  # a block of Lite0's trunk has one of single channels


# ---- folds ----


def save_run(folder: Path, config, network: nn.Module, **results) -> Path:
    """A finished run that nobody has trained."""
    folder.mkdir(parents=True)
    save_weights(folder, network)
    save_config(folder, config, 0, {"prevalence": dict.fromkeys(LABELS, 0.1)} | results)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A run of each kind."""
    root = tmp_path_factory.mktemp("runs")
    config = config_of("small", name="slices")
    network = awake(config)
    made = {"slices": save_run(root / "slices" / "fold0", config, network)}
    sha256 = json.loads((made["slices"] / "config.json").read_text())["weights_sha256"]
    for cell in ("gru", "transformer"):
        sequence = replace(train_sequence.CONFIG, name=cell, runs=("slices",), cell=cell, hidden=8, views="flip")
        over = RecurrentLayers(network.width, 1, sequence)
        nn.init.normal_(over.leave.weight, std=0.1)
        made[cell] = save_run(root / cell / "fold0", sequence, over, sources={"slices": sha256})
    shared = {name: value for name, value in vars(config).items() if name != "name"}
    study = StudyConfig(**shared, name="studies", hidden=8, study_slices=6, slices_at_once=6)
    made["studies"] = save_run(root / "studies" / "fold0", study, of_study(study, network))
    return made


def of_study(config: StudyConfig, network: HemorrhageNetwork) -> nn.Module:
    from models.training.recurrent import build_study_network

    built = build_study_network(config)
    built.slices.load_state_dict(network.state_dict())
    nn.init.normal_(built.studies.leave.weight, std=0.1)
    return built


@pytest.fixture(scope="module")
def graphs(runs, prepared, tmp_path_factory) -> Path:
    """All of them as ONNX, in one folder."""
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx.export(ExportOptions(tuple(runs.values()), output=folder, slices=20, work=prepared.root))
    return folder


@pytest.mark.parametrize("kind", ["slices", "gru", "transformer", "studies"])
def test_a_fold_as_onnx_answers_as_the_fold_in_torch(kind, runs, graphs, prepared):
    table = read_slices(prepared, "test")
    study = Study(table[table["series_id"] == table["series_id"].iloc[0]].reset_index(drop=True), prepared)
    ours = graphs / runs[kind].parent.name
    (due,), (found,) = (
        Ensemble(find_folds([folder]), "cpu", "flip", engine).ask(study)
        for folder, engine in ((runs[kind], "torch"), (ours, "onnx"))
    )
    assert due.probability.shape == found.probability.shape
    # Layers are given float16: a logit that lies between two of its numbers may go up in one and down in the other.
    step = np.finfo(np.float16).eps / 4 if kind in ("gru", "transformer") else 0.0
    assert np.abs(due.probability - found.probability).max() < EXACT + step
    assert np.ptp(due.probability) > 0.01


def test_what_is_written_is_noted_and_holds_no_patient_and_no_folder(runs, graphs):
    assert sorted(path.name for path in graphs.iterdir()) == ["gru", "slices", "studies", "transformer"]
    for kind, folder in runs.items():
        place = graphs / kind / "fold0"
        assert (place / "config.json").read_bytes() == (folder / "config.json").read_bytes()
        notes = json.loads((place / NOTES).read_text())
        assert notes["opset"] == 18
        if kind in ("gru", "transformer", "studies"):
            (checked,) = notes["checked"]
            assert checked["apart"] <= EXACT
            assert checked["of"] == "the cache"
        names = {path.name for path in place.iterdir()}
        assert names <= {"config.json", NOTES, "slices.onnx", "layers.onnx", "fingerprint.json"}
        for file in place.glob("*.onnx"):
            assert str(Path(__file__).parent.parent).encode() not in file.read_bytes()


def test_a_run_is_named_as_in_the_working_folder(runs, tmp_path, monkeypatch):
    """And not one of its name that lies elsewhere."""
    other = tmp_path / "here" / "runs" / "slices" / "fold0"
    other.mkdir(parents=True)
    (other / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "here")
    work, output = tmp_path / "work", tmp_path / "onnx"
    work.mkdir()
    (work / "runs").symlink_to(runs["slices"].parent.parent)
    export_onnx.export(ExportOptions((Path("slices"),), output=output, work=work))
    assert (output / "slices/fold0/config.json").read_bytes() == (runs["slices"] / "config.json").read_bytes()


def test_a_run_that_this_torch_cannot_write_is_named_and_nothing_is_left(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(SlicesGraph, "forward", lambda _, hounsfield: torch.special.bessel_j0(hounsfield.float()))
    with pytest.raises(InputError, match=f"^torch .* cannot write {re.escape(str(runs['slices']))} as ONNX"):
        export_onnx.export(ExportOptions((runs["slices"],), output=tmp_path / "onnx", work=tmp_path))
    assert not list((tmp_path / "onnx").iterdir())


def test_a_graph_that_differs_from_torch_is_not_written(runs, tmp_path, monkeypatch):
    real = SlicesGraph.images
    monkeypatch.setattr(SlicesGraph, "images", lambda self, hounsfield: real(self, hounsfield) * 1.01)
    with pytest.raises(InputError, match="it is not written"):
        export_onnx.export(ExportOptions((runs["slices"],), output=tmp_path / "onnx", work=tmp_path))
    assert not list((tmp_path / "onnx").glob("**/*.onnx"))


@pytest.mark.parametrize("numbers", ["float16", "int8"])
def test_what_smaller_numbers_lose_is_told(numbers, runs, tmp_path, capsys):
    output = tmp_path / "onnx"
    export_onnx.export(ExportOptions((runs["slices"],), output=output, numbers=numbers, work=tmp_path))
    notes = json.loads((output / "slices" / "fold0" / NOTES).read_text())
    (checked,) = notes["checked"]
    assert checked["of"] == "made-up slices"
    assert 0 < checked["difference"] < 0.5
    assert f"{checked['difference']:.1e}" in capsys.readouterr().out


def test_a_graph_that_has_changed_or_is_of_other_weights_is_refused(runs, graphs, tmp_path):
    import shutil

    fold = tmp_path / "slices" / "fold0"
    shutil.copytree(graphs / "slices" / "fold0", fold)
    (read,) = find_folds([fold])
    session = OnnxEngine()._session
    session(fold, SLICES, read.record)
    with pytest.raises(InputError, match="of other weights"):
        OnnxEngine()._session(fold, SLICES, read.record._replace(weights_sha256="0" * 64))
    content = bytearray((fold / SLICES).read_bytes())
    content[len(content) // 2] ^= 1
    (fold / SLICES).write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        OnnxEngine()._session(fold, SLICES, read.record)


def test_a_fold_without_graphs_is_told_the_command(runs):
    with pytest.raises(InputError, match=r"has no ONNX network; make it, .* with: python models/export_onnx\.py"):
        Ensemble(find_folds([runs["slices"]]), "cpu", "none", "onnx")
