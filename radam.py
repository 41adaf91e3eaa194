"""RAdam: Adam whose step is scaled down while its second moment is still an estimate from few gradients.

Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", ICLR 2020, arXiv:1908.03265, algorithm 2. With
gradient g, parameter p, learning rate lr, weight decay wd and step t = 1, 2, ... the update is

    p <- p - lr wd p                            decoupled weight decay (Loshchilov & Hutter, arXiv:1711.05101)
    m <- beta1 m + (1 - beta1) g
    v <- beta2 v + (1 - beta2) g^2
    p <- p - lr m / (1 - beta1^t)                                                        while rho_t <= 5
    p <- p - lr r_t m / (1 - beta1^t) sqrt(1 - beta2^t) / (sqrt(v) + eps)                afterwards

where rho_t and r_t are in `rectification`. The second form is AdamW's update with the learning rate lr r_t, the epsilon
eps / sqrt(1 - beta2^t) and the weight decay wd / r_t, so torch's fused AdamW kernel computes it in one pass over
memory. The result is that of `torch.optim.RAdam(decoupled_weight_decay=True)`; `benchmarks/radam_step.py` compares the speed.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

FUSED_DEVICES = ("cpu", "cuda")  # elsewhere torch's foreach kernels do the same arithmetic
MOMENTS = ("exp_avg", "exp_avg_sq")  # m and v, under the names of torch.optim.RAdam


def rectification(step: int | float, beta2: float) -> float | None:
    """The factor r_t of step t = 1, 2, ..., or None while the variance of 1 / sqrt(v) cannot be bounded.

    The paper's condition is rho_t > 4; torch and the authors' code wait for 5, and so do we.
    """
    decay = beta2**step
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * step * decay / (1 - decay)
    if rho <= 5:
        return None
    return math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))


class RAdam(torch.optim.Optimizer):
    """RAdam with decoupled weight decay, for dense real parameters; a parameter without a gradient is left alone.

    Each parameter's state is three plain tensors: `step` (a float32 scalar on the CPU), `exp_avg` and `exp_avg_sq`.
    Raises a ValueError for a hyperparameter out of its range, a RuntimeError for a sparse or complex gradient.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        check_hyperparameters(**{key: param_group.get(key, default) for key, default in self.defaults.items()})
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a copy of loaded state: torch would share its tensors, and keep their memory layout."""
        super().__setstate__(state)
        for parameter, own in self.state.items():
            own["step"] = own["step"].to("cpu", torch.float32, copy=True)
            own.update({key: torch.empty_like(parameter).copy_(own[key]) for key in MOMENTS})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters once; returns the closure's loss, or None without a closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            hyperparameters = {key: group[key] for key in self.defaults}
            for (step, device, fused), rows in self._alike(group["params"]).items():
                update(*map(list, zip(*rows, strict=True)), step, device, fused, **hyperparameters)
        return loss

    def _alike(self, parameters: list[Tensor]) -> dict[tuple, list[tuple[Tensor, ...]]]:
        """Advance the counts and sort (parameter, gradient, m, v) by what one kernel call must have in common."""
        rows, steps = defaultdict(list), []
        for parameter in parameters:
            if (gradient := parameter.grad) is None:
                continue
            if gradient.layout != torch.strided or gradient.is_complex():
                raise RuntimeError(f"RAdam needs dense real gradients, not {gradient.layout} {gradient.dtype}")
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device="cpu")
                state.update({key: torch.zeros_like(parameter) for key in MOMENTS})
            row = (parameter, gradient, *(state[key] for key in MOMENTS))
            # The fused kernels walk raw memory: with unequal strides the one for CPUs is wrong without a word.
            fused = parameter.device.type in FUSED_DEVICES and len({tensor.stride() for tensor in row}) == 1
            rows[state["step"].item() + 1, parameter.device, fused].append(row)
            steps.append(state["step"])
        if steps:
            torch._foreach_add_(steps, 1)
        return rows


def update(
    parameters: list[Tensor],
    gradients: list[Tensor],
    m: list[Tensor],
    v: list[Tensor],
    step: float,
    device: torch.device,
    fused: bool,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """Step t of tensors on one device, in place: the equations at the top of this file."""
    beta1, beta2 = betas
    r = rectification(step, beta2)
    if r is None:
        torch._foreach_mul_(parameters, 1 - lr * weight_decay)
        torch._foreach_lerp_(m, gradients, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, gradients, gradients, 1 - beta2)
        torch._foreach_add_(parameters, m, alpha=-lr / (1 - beta1**step))
        return
    # adamw advances the counts that it is given, and its fused kernels want them on the parameters' device.
    counts = torch.full((len(parameters),), step - 1, dtype=torch.float32, device=device if fused else "cpu")
    adamw(
        *(parameters, gradients, m, v, [], list(counts.unbind())),
        fused=fused,
        foreach=not fused,
        amsgrad=False,
        maximize=False,
        beta1=beta1,
        beta2=beta2,
        lr=lr * r,
        eps=eps / math.sqrt(1 - beta2**step),
        weight_decay=weight_decay / r,
    )


def check_hyperparameters(lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
    """Raise a ValueError that carries the first value out of range."""
    for name, value, end in (
        ("lr", lr, math.inf),
        ("betas[0]", betas[0], 1),
        ("betas[1]", betas[1], 1),
        ("eps", eps, math.inf),
        ("weight_decay", weight_decay, math.inf),
    ):
        if not 0 <= value < end:
            raise ValueError(f"RAdam: {name} must lie in [0, {end}), not {value}")
