"""--profile: some training steps under torch's profiler."""

from fastai.callback.core import Callback, CancelFitException, CancelValidException
from torch import nn
from torch.profiler import ProfilerActivity, profile, schedule
from torch.utils.data import DataLoader

from models.common.files import replacing
from models.common.options import TrainOptions
from models.training.callbacks import LAST
from models.training.compiling import compile_backbone, compile_explained
from models.training.learner import make_learner
from models.training.loading import explained
from models.training.processes import Processes

_SKIPPED, _WARM_UP, _PROFILED = 5, 3, 10  # steps: loaders start and kernels are chosen in the first
_ROWS = 15


def profile_steps(network: nn.Module, train: DataLoader, options: TrainOptions, processes: Processes) -> None:
    """Print what costs the time of training steps, and write a trace beside the fold's folder.

    Raises InputError for what fails in the loader, and where the network is to be compiled and cannot be.
    """
    profiled = Profiled(processes)
    learner = make_learner(network, train, train, options.config, processes, [profiled])
    if options.compile:
        compile_backbone(network, learner)
    with explained(train), compile_explained():
        learner.fit(_SKIPPED + _WARM_UP + _PROFILED)  # epochs of at least a step
    if processes.is_main:
        path = options.folder.with_name(f"{options.folder.name}_trace.json")
        with replacing(path) as temporary:
            profiled.profile.export_chrome_trace(str(temporary))
        busiest = f"self_{processes.device.type}_time_total"
        print(profiled.profile.key_averages().table(sort_by=busiest, row_limit=_ROWS, max_name_column_width=40))
        print(f"{path}: {_PROFILED} steps, for https://ui.perfetto.dev or chrome://tracing")


class Profiled(Callback):
    """Profile some steps, then end."""

    order = LAST

    def __init__(self, processes: Processes) -> None:
        super().__init__()
        on_cuda = [ProfilerActivity.CUDA] if processes.device.type == "cuda" else []
        steps = schedule(wait=_SKIPPED, warmup=_WARM_UP, active=_PROFILED, repeat=1)
        self.profile = profile(activities=[ProfilerActivity.CPU, *on_cuda], schedule=steps)

    def before_fit(self) -> None:
        """Begin."""
        self.profile.start()

    def after_batch(self) -> None:
        """Count a step, and end after the last."""
        self.profile.step()
        if self.train_iter >= _SKIPPED + _WARM_UP + _PROFILED:
            raise CancelFitException

    def before_validate(self) -> None:
        """Leave the validation out."""
        raise CancelValidException

    def after_fit(self) -> None:
        """Stop."""
        self.profile.stop()
