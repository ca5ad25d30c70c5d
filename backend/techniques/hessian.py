"""What the Hessian of a matrix's inputs is used for: how far an output is off, and the factor of its inverse."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_DAMPING = 1.0  # of the mean diagonal: above it nothing is left of the Hessian


def inverse_factor(hessian: Tensor, damping: float) -> Tensor | None:
    """The upper Cholesky factor (K, K) of the damped Hessian's inverse, or None where no damping helps.

    Inputs that were always zero get 1 on the diagonal: what is changed there spreads no error. The damping
    (a share of the mean diagonal) is raised tenfold until the Hessian can be factored.
    """
    wanted = hessian.double().clone()
    diagonal = wanted.diagonal()
    mean = diagonal.mean()
    diagonal[diagonal == 0] = 1.0
    while damping <= MOST_DAMPING:
        damped = wanted.clone()
        damped.diagonal().add_(damping * mean)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not failed and torch.isfinite(upper).all():
            return upper.float()
        damping = max(10 * damping, 1e-4)
    return None


def output_error(weight: Tensor, rounded: Tensor, hessian: Tensor) -> float:
    """||(W - Q) X|| / ||W X|| for weights (N, K) and the Hessian (K, K) of what enters them."""
    off = weight - rounded
    error = ((off @ hessian) * off).sum().clamp_min(0)
    return float((error / ((weight @ hessian) * weight).sum().clamp_min(1e-30)).sqrt())
