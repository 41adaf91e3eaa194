"""RAdam: Adam that shortens its steps while its second moment is still an estimate from few gradients.

Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", ICLR 2020, arXiv:1908.03265,
algorithm 2. With parameter p, gradient g, learning rate lr, weight decay wd and step t = 1, 2, ...:

    p <- p - lr wd p                                                 decoupled weight decay, arXiv:1711.05101
    m <- beta1 m + (1 - beta1) g
    v <- beta2 v + (1 - beta2) g^2
    p <- p - lr m / (1 - beta1^t)                                                     while r_t is undefined
    p <- p - lr r_t m / (1 - beta1^t) sqrt(1 - beta2^t) / (sqrt(v) + eps)             from then on

with the rectification r_t below. The last form is AdamW with learning rate lr r_t, weight decay wd / r_t and
epsilon eps / sqrt(1 - beta2^t), so torch's fused AdamW kernel takes the whole step in one pass over memory.
The result is that of torch.optim.RAdam with decoupled_weight_decay=True; benchmarks/radam_step.py times both.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

FUSED_DEVICES = ("cpu", "cuda")  # elsewhere torch's foreach kernels do the same arithmetic
WATCHED, LOOK = 100, 20  # steps
MOMENTS = ("exp_avg", "exp_avg_sq")  # m and v, by their names in torch.optim.RAdam


def rectification(step: float, beta2: float) -> float | None:
    """The factor r_t of step t = 1, 2, ..., or None while v has seen too few gradients for it to be defined.

    The paper asks for rho_t > 4; torch and the authors' own code are more careful, rho_t > 5, and so are we.
    """
    decay = beta2**step
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * step * decay / (1 - decay)
    if rho <= 5:
        return None
    return math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))


class RAdam(torch.optim.Optimizer):
    """RAdam with decoupled weight decay; parameters without a gradient stay as they are.

    The state of a parameter is `step`, a number, and two tensors, `exp_avg` and `exp_avg_sq`.
    torch.amp.GradScaler need not wait for the device: the kernel unscales, and leaves the step out where fp16 has
    overflowed. Which steps those were is read every LOOK steps; till then they count. Of the first WATCHED steps, in
    which a wrong count would matter and most overflows lie, each is waited for.
    Raises ValueError for a hyperparameter out of range, RuntimeError for a sparse or complex gradient.
    """

    _step_supports_amp_scaling = True  # GradScaler then sets `grad_scale` and `found_inf` around a step

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._unread: list[tuple[list[Tensor], Tensor]] = []  # parameters, and whether their step has been left out

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        check_hyperparameters(self.defaults | param_group)
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """torch's, with the steps counted that have been taken."""
        self.count_steps()
        return super().state_dict()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Copy what is loaded: torch would share its tensors with the giver, and keep their memory layout."""
        super().__setstate__(state)
        self._unread = []
        for parameter, own in self.state.items():
            if own:  # of one that has made no step, which somebody may have saved as well
                own["step"] = float(own["step"])
                own.update({name: torch.empty_like(parameter).copy_(own[name]) for name in MOMENTS})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step and return the closure's loss, None without a closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            hyperparameters = {name: group[name] for name in ("lr", "betas", "eps", "weight_decay")}
            for (step, *_, same_layout), rows in self._alike(group["params"]).items():
                parameters, gradients, m, v = map(list, zip(*rows, strict=True))
                self._step_of_some(parameters, gradients, m, v, step, same_layout, hyperparameters)
        if len(self._unread) >= LOOK:
            self.count_steps()
        return loss

    def count_steps(self) -> None:
        """Take the steps that were left out off the count. Waits for the device."""
        if self._unread:
            left_out = torch.stack([overflow.reshape(()) for _, overflow in self._unread]).tolist()
            for (parameters, _), number in zip(self._unread, left_out, strict=True):
                for parameter in parameters if number else ():
                    self.state[parameter]["step"] -= 1
            self._unread.clear()

    def _step_of_some(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        m: list[Tensor],
        v: list[Tensor],
        step: float,
        same_layout: bool,
        hyperparameters: dict[str, Any],
    ) -> None:
        """Take a step of parameters that are alike."""
        scale: Tensor | None = getattr(self, "grad_scale", None)  # none too where GradScaler has unscaled them
        overflow: Tensor | None = getattr(self, "found_inf", None)
        kernel = same_layout and parameters[0].device.type in FUSED_DEVICES
        if overflow is not None and not (kernel and step > WATCHED):
            if overflow.item():
                return
            gradients = gradients if scale is None else list(torch._foreach_div(gradients, scale))
            scale = overflow = None
        update(parameters, gradients, m, v, step, same_layout, scale, overflow, **hyperparameters)
        for parameter in parameters:
            self.state[parameter]["step"] = step
        if overflow is not None:
            self._unread.append((parameters, overflow))

    def _alike(self, parameters: list[Tensor]) -> dict[tuple, list[tuple[Tensor, Tensor, Tensor, Tensor]]]:
        """Gather (parameter, gradient, m, v) by the step, and by what one kernel call has in common."""
        rows = defaultdict(list)
        for parameter in parameters:
            gradient = parameter.grad
            if gradient is None:
                continue
            if gradient.layout != torch.strided or gradient.is_complex():
                kind = f"{gradient.layout}, {gradient.dtype}"
                raise RuntimeError(f"RAdam takes dense real gradients, not {kind}")
            state = self.state[parameter]
            if not state:
                state.update(step=0.0, **{name: torch.zeros_like(parameter) for name in MOMENTS})
            m, v = state["exp_avg"], state["exp_avg_sq"]
            same_layout = parameter.stride() == gradient.stride() == m.stride() == v.stride()
            rows[state["step"] + 1, parameter.device, parameter.dtype, same_layout].append((parameter, gradient, m, v))
        return rows


def update(
    parameters: list[Tensor],
    gradients: list[Tensor],
    m: list[Tensor],
    v: list[Tensor],
    step: float,
    same_layout: bool,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """Apply the equations at the top of this file, in place, to tensors of one device, type and step.

    Each parameter may have any shape; its gradient, m and v have the same. `step` counts from 1, this one included.
    The kernel of rectified steps divides the gradients by `grad_scale`, and does nothing where `found_inf` is 1.
    """
    beta1, beta2 = betas
    r = rectification(step, beta2)
    if r is None:
        torch._foreach_mul_(parameters, 1 - lr * weight_decay)
        torch._foreach_lerp_(m, gradients, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, gradients, gradients, 1 - beta2)
        torch._foreach_add_(parameters, m, alpha=-lr / (1 - beta1**step))
        return

    equal_adamw = {
        "lr": lr * r,
        "beta1": beta1,
        "beta2": beta2,
        "eps": eps / math.sqrt(1 - beta2**step),
        "weight_decay": weight_decay / r,
        "amsgrad": False,
        "maximize": False,
    }
    device, size = parameters[0].device, len(parameters)
    # Fused kernels walk raw memory: where the layouts differ, the one for the CPU is wrong without a word.
    if same_layout and device.type in FUSED_DEVICES:
        count = torch.full((), step, dtype=torch.float32, device=device)  # the kernel reads it, adamw counts
        scaling = {"grad_scale": grad_scale, "found_inf": found_inf}
        torch._fused_adamw_(parameters, gradients, m, v, [], [count] * size, **equal_adamw, **scaling)
    else:
        counts = list(torch.full((size,), step - 1, dtype=torch.float32, device="cpu").unbind())
        adamw(parameters, gradients, m, v, [], counts, foreach=True, **equal_adamw)


def check_hyperparameters(group: dict[str, Any]) -> None:
    """Raise a ValueError that carries the first value out of range."""
    beta1, beta2 = group["betas"]
    below_one = {"betas[0]": beta1, "betas[1]": beta2}
    unbounded = {name: group[name] for name in ("lr", "eps", "weight_decay")}
    for name, value in (below_one | unbounded).items():
        end = 1 if name in below_one else math.inf
        if not 0 <= value < end:
            raise ValueError(f"RAdam: {name} must lie in [0, {end}), not {value}")
