"""Replicas: processes that train one model together, each on its own rows of the same batch.

Every process holds the whole student, its optimizer and the teacher. Gradients are averaged after the backward passes,
so that what comes behind (methods, clipping, the optimizer) sees the same numbers in each, and weights never part.
The first process leads: each step begins at its word, and it alone looks, writes and saves.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from backend.recipe.base import RecipeError
from backend.recipe.training import Training

BUCKET = 8 * 2**20  # numbers that travel together: many small gradients would each wait for an answer
SILENT_S = 1800  # after which a process that neither answers nor ends counts as lost


class Stopped(Exception):
    """The first process has ended the training, for a reason that it tells."""


class ReplicaLost(RuntimeError):
    """Another process of the group has ended: this one cannot go on without it."""


class Replicas:
    """Which of how many processes this one is. Alone (the default) nothing here does anything."""

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count
        self._over = False

    @property
    def leads(self) -> bool:
        """Whether this process looks, writes and saves."""
        return self.rank == 0

    def part(self, asked: Training) -> Training:
        """The training as one process bears it: with its part of the batch.

        Raises:
            RecipeError: for a batch that cannot be shared out evenly: the mean of means would not be the mean.
        """
        pace = asked.pace
        if pace.batch % (self.count * pace.accumulate):
            value = f"{pace.batch} windows for {self.count} processes, in {pace.accumulate} calls each"
            allowed = f"a multiple of {self.count} x {pace.accumulate}"
            raise RecipeError("pace.batch", value, allowed, "Change the batch, accumulate, or the number of processes.")
        return asked.model_copy(update={"pace": pace.model_copy(update={"batch": pace.batch // self.count})})

    def own(self, batch: Tensor) -> Tensor:
        """The rows (B / count, ...) of a batch (B, ...) that are this process's."""
        return batch.chunk(self.count)[self.rank]

    def go_on(self) -> None:
        """The beginning of a step: the first process says that there is one, the others wait for its word.

        Raises:
            Stopped: in the others, when it has said that there is none.
            ReplicaLost: when one of them has ended.
        """
        if self.count > 1 and not self._word(1):
            raise Stopped

    def stop(self) -> None:
        """Of the first process: no further step. The others leave; said once, later calls do nothing."""
        if self.count > 1 and not self._over:
            self._over = True
            self._word(0)

    def _word(self, said: int) -> bool:
        word = torch.tensor([said], dtype=torch.int32)
        with _together():
            dist.broadcast(word, 0)
        return bool(word)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put the mean over all processes into every gradient.

        What no process has a gradient for stays without; where only some have one (an expert that got no token here),
        the others count as 0.
        """
        if self.count == 1:
            return
        every = list(parameters)
        there = torch.tensor([value.grad is not None for value in every], dtype=torch.int32)
        with _together():
            dist.all_reduce(there, op=dist.ReduceOp.MAX)
        found = []
        for value, somewhere in zip(every, there.tolist(), strict=True):
            if somewhere:
                value.grad = torch.zeros_like(value) if value.grad is None else value.grad
                found.append(value.grad)
        self._average(found)

    def average(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """The mean of each number over all processes, which have the same names."""
        if self.count == 1 or not values:
            return values
        means = torch.stack(list(values.values()))
        self._average([means])
        return dict(zip(values, means.unbind(), strict=True))

    def _average(self, tensors: Sequence[Tensor]) -> None:
        for bucket in _buckets(tensors):
            flat = torch.cat([value.reshape(-1) for value in bucket])
            with _together():
                dist.all_reduce(flat)
            _pour(flat.div_(self.count), bucket)

    @torch.no_grad()
    def share(self, tensors: Sequence[Tensor]) -> None:
        """Put the first process's numbers into every process's tensors."""
        if self.count == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([value.reshape(-1) for value in bucket])
            with _together():
                dist.broadcast(flat, 0)
            _pour(flat, bucket)

    def agree(self, said: Any) -> list[Any]:
        """What each process says, in their order; plain data."""
        everything: list[Any] = [said] * self.count
        if self.count > 1:
            with _together():
                dist.all_gather_object(everything, said)
        return everything


ALONE = Replicas()


def join() -> Replicas:
    """Join the processes that a launcher has started beside this one; ALONE where none did.

    Raises:
        RecipeError: for more processes on this machine than it has GPUs.
    """
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        return ALONE
    if not dist.is_initialized():
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if gpus:
            place = int(os.environ.get("LOCAL_RANK", 0))
            if place >= gpus:
                beside = os.environ.get("LOCAL_WORLD_SIZE", count)
                raise RecipeError("processes", beside, f"at most {gpus}, one for each GPU here", "Start fewer.")
            torch.cuda.set_device(place)
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=timedelta(seconds=SILENT_S))
    return Replicas(dist.get_rank(), dist.get_world_size())


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors in runs of one kind of number, each run of about BUCKET numbers."""
    bucket: list[Tensor] = []
    for value in tensors:
        if bucket and (
            (value.dtype, value.device) != (bucket[0].dtype, bucket[0].device)
            or sum(other.numel() for other in bucket) + value.numel() > BUCKET
        ):
            yield bucket
            bucket = []
        bucket.append(value)
    if bucket:
        yield bucket


def _pour(flat: Tensor, bucket: list[Tensor]) -> None:
    """Put the numbers of `flat` (N,) back into the tensors that it was made of."""
    for value, part in zip(bucket, flat.split([value.numel() for value in bucket]), strict=True):
        value.copy_(part.view_as(value))


@contextmanager
def _together() -> Iterator[None]:
    """What all processes do at once.

    Raises:
        ReplicaLost: when it cannot be done any more.
    """
    try:
        yield
    except RuntimeError as error:  # gloo and nccl raise kinds of it when a connection is gone
        reason = str(error).strip().splitlines()[0][:200]
        raise ReplicaLost(f"another process of this training has ended or is silent ({reason})") from error
