"""The processes of one command: a single one, or those that torchrun has started, each with a device of its own."""

import contextlib
import gc
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import joblib
import torch
from torch import distributed, nn

from models.common.errors import InputError
from models.training.stopping import is_one_of_several

_GPUS = Path("/proc/driver/nvidia/gpus")  # all of the machine: CUDA_VISIBLE_DEVICES hides some of them from torch

Result = TypeVar("Result")


@dataclass(frozen=True)
class Processes:
    """How many there are, which one this is, and its device. All run the same lines; the main one writes the files."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes the files."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor, of any shape, over all processes."""
        if self.count == 1:
            return values
        total = values.to(self.device, copy=True)
        distributed.all_reduce(total)
        return total

    def largest(self, value: int) -> int:
        """The largest of the numbers of all processes."""
        if self.count == 1:
            return value
        largest = torch.tensor(value, device=self.device)
        distributed.all_reduce(largest, distributed.ReduceOp.MAX)
        return int(largest)

    def gather(self, item: Result) -> list[Result]:
        """The items of all processes in their order, in each of them."""
        items = [item] * self.count
        if self.count > 1:
            distributed.all_gather_object(items, item)
        return items

    def main_first(self, function: Callable[[], Result]) -> Result:
        """Call a function in the main process, then in the others; all end if the main one raises InputError."""
        if self.is_main:
            results = []
            self.on_main(lambda: results.append(function()))
            return results[0]
        self.on_main(function)
        return function()

    def on_main(self, function: Callable[[], Result]) -> Result:
        """Call a function in the main process alone; all get its result, or end with its InputError."""
        results: list[Result] = []  # one, if all goes well
        error = None
        if self.is_main:
            try:
                results.append(function())
            except InputError as caught:
                error = caught
        if self.count > 1:
            (results, message), *_ = self.gather((results, None if error is None else str(error)))
            if message is not None and not self.is_main:
                raise SystemExit(1)  # the main process says why
        if error is not None:
            raise error
        return results[0]

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.count > 1:
            distributed.barrier()

    def together(self, network: nn.Module) -> nn.Module:
        """A network whose gradients are the mean over the processes; on CUDA they share batch statistics, too.

        All start with the weights of the main process. The network itself stays what it was, under the same names.
        """
        if self.count == 1:
            return network
        devices = None
        if self.device.type == "cuda":  # torch has no such batch norm for CPUs
            nn.SyncBatchNorm.convert_sync_batchnorm(network)
            devices = [self.device.index]
        return nn.parallel.DistributedDataParallel(network, device_ids=devices)

    def share_statistics(self, network: nn.Module) -> None:
        """Give all processes the running batch-norm statistics of the main one."""
        if self.count > 1:
            for buffer in network.buffers():
                distributed.broadcast(buffer, src=0)


@contextmanager
def started_processes(device: str) -> Generator[Processes]:
    """The processes that torchrun has started (DistributedDataParallel's: gloo on CPUs, else NCCL), or this one alone.

    What the others print is left out: all say the same.
    """
    if not is_one_of_several():
        yield Processes(choose_device(device))
        return
    # DistributedDataParallel imports it. What is imported while there is a group holds it, and gloo's threads with it.
    import torch._dynamo  # noqa: F401
    from accelerate import PartialState  # a second, for those who need it

    state = PartialState(cpu=choose_device(device).type == "cpu")
    assert state.device is not None  # it has been chosen just now
    with contextlib.ExitStack() as stack:
        if not state.is_main_process:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        yield Processes(state.device, state.process_index, state.num_processes)
    # A learner, which refers to itself, still holds the group, and gloo's threads would abort the end of Python.
    gc.collect()
    distributed.destroy_process_group()


def choose_device(name: str) -> torch.device:
    """ "auto" is the first CUDA device, else Apple's, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def count_workers(workers: int, device: torch.device) -> int:
    """Loader processes for a `Machine.workers` of -1: none on a CPU, else one a core, at most 8 a device.

    The cores are those that this process may use (by affinity, and by what a container is allowed), shared with the
    others that torchrun has started; and not more than the machine has for each of its GPUs, so that folds that are
    trained side by side, a command a GPU, leave one another theirs.
    """
    if workers >= 0:
        return workers
    if device.type == "cpu":
        return 0
    usable = joblib.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    share = (os.cpu_count() or 1) // max(1, torch.cuda.device_count(), len(list(_GPUS.glob("*"))))
    return max(1, min(usable, share, 8))
