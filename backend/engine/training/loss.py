"""What is minimised: parts that a student's output is held against, each a mean over tokens or sentences."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.recipe.losses import Losses


def soft_loss(student: Tensor, teacher: Tensor, losses: Losses) -> Tensor:
    """The distance of softened distributions in nats, times T squared so that gradients keep their size.

    Forward is KL(P || Q) of the teacher's P and the student's Q, reverse KL(Q || P), and jsd b KL(P || M) +
    (1 - b) KL(Q || M) with M = b P + (1 - b) Q.

    Args:
        student, teacher: logits (N, V); a vocabulary that is padded on one side is cut to what both have.
    Source: Hinton et al. 2015, section 2; Agarwal et al. 2024 (GKD), equation 1 for the mix.
    """
    width, heat = min(student.shape[-1], teacher.shape[-1]), losses.temperature
    ours = torch.log_softmax(student[:, :width].float() / heat, dim=-1)
    theirs = torch.log_softmax(teacher[:, :width].float() / heat, dim=-1)
    if losses.direction == "forward":
        return _kl(theirs, ours) * heat**2
    if losses.direction == "reverse":
        return _kl(ours, theirs) * heat**2
    share = torch.tensor(losses.beta, device=ours.device)
    mix = torch.logaddexp(theirs + share.log(), ours + (1 - share).log())
    return (losses.beta * _kl(theirs, mix) + (1 - losses.beta) * _kl(ours, mix)) * heat**2


def _kl(of: Tensor, from_: Tensor) -> Tensor:
    """Mean KL(of || from) of log-probabilities (N, V)."""
    return F.kl_div(from_, of, reduction="batchmean", log_target=True)


def label_loss(student: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (N, V) on the text's own next tokens (N,)."""
    return F.cross_entropy(student.float(), labels)


def hidden_loss(student: Tensor, teacher: Tensor, mask: Tensor | None, projection: nn.Module | None) -> Tensor:
    """MSE between hidden states (B, T, H) of a layer each, as a share of the teacher's mean square.

    The share makes one weight mean the same in every layer and model: 0 is alike, 1 is as far as zeros are.

    Args:
        mask: (B, T), 0 where a token is filling; None has none.
        projection: of the student's width to the teacher's.
    Source: Romero et al. 2015 (FitNets), equation 3; Jiao et al. 2020 (TinyBERT), equation 8.
    """
    ours, theirs = student.float(), teacher.float()
    if projection is not None:
        ours = projection(ours)
    if mask is not None:
        ours, theirs = ours[mask.bool()], theirs[mask.bool()]  # (N, H)
    return F.mse_loss(ours, theirs) / theirs.square().mean().clamp_min(1e-12)


def attention_loss(student: Tensor, teacher: Tensor, mask: Tensor | None, maps: str) -> Tensor:
    """KL(teacher || student) in nats of attention maps (B, heads, T, T), or MSE times T; mean over heads and queries.

    Heads are averaged where their numbers differ. Times T, since a row of T numbers sums to one.
    Source: Jiao et al. 2020 (TinyBERT), equation 7; Wang et al. 2020 (MiniLM), equation 5.
    """
    ours, theirs = student.float(), teacher.float()
    if ours.shape[1] != theirs.shape[1]:
        ours, theirs = ours.mean(1, keepdim=True), theirs.mean(1, keepdim=True)
    if maps == "mse":
        rows = (ours - theirs).square().sum(-1)  # (B, heads, T)
    else:
        rows = (torch.xlogy(theirs, theirs) - theirs * ours.clamp_min(1e-9).log()).sum(-1)
    if mask is None:
        return rows.mean()
    real = mask[:, None, :].expand_as(rows).float()
    return (rows * real).sum() / real.sum()


def embedding_loss(student: Tensor, teacher: Tensor, vectors: str) -> Tensor:
    """1 - cosine of unit vectors (B, H), or the squared distance between them; mean over sentences.

    Source: Reimers and Gurevych 2020, equation 1, for the squared distance.
    """
    if vectors == "mse":
        return (student - teacher).square().sum(-1).mean()
    return 1 - F.cosine_similarity(student, teacher, dim=-1).mean()
