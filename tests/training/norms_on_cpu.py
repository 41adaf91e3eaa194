"""torch's SyncBatchNorm on a CPU: what it has for GPUs alone, five kernels, as plain sums; all else is its own.

So what it asserts and exchanges is tested where there is no GPU. `shared_norms()` is called once in a process.
"""

from unittest import mock

import torch
from torch import nn

from models.training import processes

KERNELS = torch.library.Library("aten", "IMPL")


def shared_norms() -> None:
    """Let this process and others share batch statistics on a CPU as they do on CUDA."""
    for kernel in (
        batch_norm_stats,
        batch_norm_gather_stats_with_counts,
        batch_norm_elemt,
        batch_norm_backward_reduce,
        batch_norm_backward_elemt,
    ):
        KERNELS.impl(kernel.__name__, kernel, "CPU")
    forward = nn.SyncBatchNorm.forward

    def as_if_on_gpu(norm: nn.SyncBatchNorm, values: torch.Tensor) -> torch.Tensor:
        with mock.patch.object(torch._C, "_get_privateuse1_backend_name", return_value="cpu"):  # a kind that it accepts
            return forward(norm, values)

    nn.SyncBatchNorm.forward = as_if_on_gpu
    nn.parallel.DistributedDataParallel._passing_sync_batchnorm_handle = lambda *_: None  # it asks for a GPU, no more
    processes.SHARED_NORMS.add("cpu")


def by_channel(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Numbers (channels,) to calculate with beside values (n, channels, ...)."""
    return values.view(1, -1, *[1] * (like.ndim - 2))


def over_channels(values: torch.Tensor) -> torch.Tensor:
    """The sums of values (n, channels, ...), (channels,)."""
    return values.transpose(0, 1).flatten(1).sum(1)


def batch_norm_stats(values, eps):
    flat = values.transpose(0, 1).flatten(1)
    return flat.mean(1), (flat.var(1, correction=0) + eps).rsqrt()


def batch_norm_gather_stats_with_counts(_, means, scales, running_mean, running_var, momentum, eps, counts):
    share = (counts / counts.sum()).unsqueeze(1)  # of each process
    mean = (means * share).sum(0)
    variance = ((scales**-2 - eps + (means - mean) ** 2) * share).sum(0)
    if running_mean is not None:
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * counts.sum() / (counts.sum() - 1), momentum)
    return mean, (variance + eps).rsqrt()


def batch_norm_elemt(values, weight, bias, mean, scale, _):
    mean, scale, weight, bias = (by_channel(part, values) for part in (mean, scale, weight, bias))
    return (values - mean) * scale * weight + bias


def batch_norm_backward_reduce(gradient, values, mean, scale, *_):
    total = over_channels(gradient)
    product = over_channels(gradient * (values - by_channel(mean, values)))
    return total, product, product * scale, total


def batch_norm_backward_elemt(gradient, values, mean, scale, weight, total, product, counts):
    every = counts.sum()
    mean, scale, weight, total, product = (by_channel(part, values) for part in (mean, scale, weight, total, product))
    return (gradient - total / every - (values - mean) * scale**2 * product / every) * scale * weight
