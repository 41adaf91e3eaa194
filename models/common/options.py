"""The command lines of training and inference: what is asked for, and on which machine."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from models.common.config import RunConfig
from models.common.folders import Stage, Work, WorkFolder, default_work
from models.common.session import Session

TestTimeAugmentation = Literal["none", "flip", "d4"]
EngineName = Literal["auto", "torch", "onnx"]


@dataclass(frozen=True)
class Machine:
    """Where a run finds its slices, and what it runs on; the latter changes nothing of its result but the rounding."""

    work: WorkFolder = field(default_factory=default_work)
    stage: Stage = None
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    workers: int = -1
    """processes that load slices; -1: none on a CPU, whose cores the network needs, else one a core, at most 8"""
    session: Session = field(default_factory=Session)

    @property
    def working_folder(self) -> Work:
        """The working folder, with the tables of the stage."""
        return Work(self.work, self.stage)


@dataclass(frozen=True)
class TrainOptions:
    """The command line of a training script: what defines the run, its fold, and how it is carried out."""

    config: RunConfig
    fold: int = 0
    """the fold to validate on; the others are trained on"""
    checkpoint_minutes: float = 5
    """a checkpoint every so many minutes, from which the same command goes on"""
    checkpoint_steps: int = 0
    """instead: every so many steps"""
    tta: TestTimeAugmentation = "d4"
    """of the out-of-fold predictions, which a blend is fitted on: the same as of the test predictions that it is for"""
    compile: bool = False
    """compile the network with torch.compile: minutes at the start, faster steps after"""
    wandb: bool = False
    """send losses to Weights & Biases (TensorBoard events are written in any case)"""
    find_lr: bool = False
    """do not train: try learning rates, plot the losses and suggest --max-lr"""
    profile: bool = False
    """do not train: make some steps under torch's profiler, print where the time goes, write a trace"""
    fast_dev_run: bool = False
    """do not train: two batches of everything, to the files of a run, in fast_dev_run/"""
    machine: Machine = field(default_factory=Machine)

    @property
    def fold_folder(self) -> Path:
        """The folder of the fold, beside those of the runs that it may build on."""
        return self.machine.working_folder.run(self.config.name, self.fold)

    @property
    def folder(self) -> Path:
        """Where the files of the fold are written."""
        if self.fast_dev_run:
            return self.machine.working_folder.rehearsal(self.config.name, self.fold)
        return self.fold_folder

    @property
    def leaves_run_alone(self) -> bool:
        """Whether the folder of the fold is neither read nor written to."""
        return self.find_lr or self.profile or self.fast_dev_run


@dataclass(frozen=True)
class InferOptions:
    """The command line of an inference script."""

    name: str
    """the run"""
    fold: int = 0
    """the fold whose weights to use"""
    tta: TestTimeAugmentation = "d4"
    """test-time augmentation: one, two or eight symmetries; over embeddings: studies as they are, or upside down too"""
    split: Literal["test", "train"] = "test"
    """the slices to predict; "train" is for a network that was trained on other data"""
    weights: Path | None = None
    """the folder of a fold trained elsewhere, or a release; none: runs/<name>/fold<fold> in the working folder"""
    batch_size: int = 32
    """slices at a time; studies, where a network looks at studies"""
    checkpoint_minutes: float = 5
    """what is predicted is saved every so many minutes, and the same command goes on after it"""
    machine: Machine = field(default_factory=Machine)

    @property
    def folder(self) -> Path:
        """Where the trained network lies."""
        return self.weights or self.output.parent

    @property
    def output(self) -> Path:
        """The prediction file to write."""
        return self.machine.working_folder.prediction(self.name, self.fold, self.split)
