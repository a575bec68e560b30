"""Processes that share backbones: groups that each hold one copy, split over their ranks."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from latentmas.errors import LatentMASError

__all__ = ["Mesh", "open_mesh"]

T = TypeVar("T")

LOADING = timedelta(hours=1)
"""Longest wait for another process, which may be reading a large model from a slow disk."""


@dataclass(frozen=True)
class Mesh:
    """The processes of a job: `replicas` groups of `tensor_parallel` processes each.

    Rank r of the job is rank `r % tensor_parallel` of group `r // tensor_parallel`. All processes
    of a group hold parts of the same backbones, and must run the same rows with the same options.
    """

    tensor_parallel: int
    """Number of processes that hold a backbone together."""
    rank: int
    """Number of this process in its group."""
    replicas: int
    """Number of groups."""
    replica: int
    """Number of this process's group."""
    device: str
    """Device of this process."""
    devices: DeviceMesh
    """torch's mesh of the processes, with the dimensions `dp_replicate` and `tp`."""

    @property
    def writes(self) -> bool:
        """Whether this process writes the results of its group: it is the first one in it."""
        return self.rank == 0

    def share(self, rows: Sequence[T]) -> list[T]:
        """The group's part of some rows: every `replicas`-th one."""
        return [rows[i] for i in range(self.replica, len(rows), self.replicas)]

    def gather(self, items: Sequence[T]) -> list[T]:
        """What `share` parted, joined again in the order of the rows, on every process.

        Args:
            items: One item for each row of the group's share. All processes must call this.
        """
        group, parts = self.devices["dp_replicate"].get_group(), [None] * self.replicas
        dist.all_gather_object(parts, list(items), group=group)
        whole: list[Any] = [None] * sum(len(part or ()) for part in parts)
        for number, part in enumerate(parts):
            whole[number :: self.replicas] = part or []
        return whole

    def check_same(self, doing: str, **parts: object) -> None:
        """Compare what the processes of a group are about to do; all of them must call this.

        Args:
            doing: What they are about to do, such as `"run"`.
            **parts: At most three things that must be the same, by name.

        Raises:
            LatentMASError: They differ; it is raised on every process of the group.
        """
        names = ["call", *parts][:4]
        digests = [_digest(doing), *map(_digest, parts.values())]
        digests += [0] * (4 - len(digests))
        # The maxima of x and -x are equal but for the sign where all ranks have the same x.
        own = torch.tensor([digests, [-x for x in digests]], device=self.device)
        dist.all_reduce(own, op=dist.ReduceOp.MAX, group=self.devices["tp"].get_group())
        high, low = own.tolist()
        differing = [name for name, a, b in zip(names, high, low, strict=False) if a != -b]
        if differing:
            first = self.replica * self.tensor_parallel
            raise LatentMASError(
                f"{doing}: the {self.tensor_parallel} processes of tensor-parallel group "
                f"{self.replica} (ranks {first} to {first + self.tensor_parallel - 1}) were given "
                f"different {' and '.join(name + 's' * (name == 'call') for name in differing)}; "
                "they hold parts of one model and must make the same calls: give each process of "
                "a group the same rows and options, such as system.mesh.share(rows)"
            )


def open_mesh(tensor_parallel: int) -> Mesh:
    """The mesh of this job, whose processes `torchrun` has started.

    Raises:
        LatentMASError: The number of processes is not a multiple of `tensor_parallel`, or torch's
            process group cannot be opened.
    """
    world = dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", 1))
    if world % tensor_parallel:
        count = f"{world} process{'es' * (world != 1)}"
        raise LatentMASError(
            f"tensor_parallel={tensor_parallel} needs a multiple of {tensor_parallel} processes, "
            f"and this job has {count}; start it with torchrun --nproc_per_node={tensor_parallel}"
        )
    kind = torch.accelerator.current_accelerator()
    name = "cpu" if kind is None else kind.type
    local = int(os.environ.get("LOCAL_RANK", 0))
    if name != "cpu":
        torch.accelerator.set_device_index(local)
    if not dist.is_initialized():
        _open_group(name)
    known = _MESHES.get(tensor_parallel)
    if known is not None:
        return known
    shape = world // tensor_parallel, tensor_parallel
    devices = init_device_mesh(name, shape, mesh_dim_names=("dp_replicate", "tp"))
    mesh = Mesh(
        tensor_parallel=tensor_parallel,
        rank=devices.get_local_rank("tp"),
        replicas=shape[0],
        replica=devices.get_local_rank("dp_replicate"),
        device="cpu" if name == "cpu" else f"{name}:{local}",
        devices=devices,
    )
    _MESHES[tensor_parallel] = mesh
    return mesh


_MESHES: dict[int, Mesh] = {}


def _open_group(device: str) -> None:
    try:
        backend = dist.get_default_backend_for_device(device)
        dist.init_process_group(backend, timeout=LOADING)
    except (RuntimeError, ValueError) as error:
        raise LatentMASError(
            f"cannot open torch's process group: {error}; start the job with torchrun"
        ) from error
    _MESHES.clear()
    atexit.register(_close_group)


def _close_group() -> None:
    """Processes that leave a group open may abort at exit."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _digest(value: object) -> int:
    """A number of 62 bits that is equal for equal plain data on all processes."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=_plain)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2


def _plain(value: object) -> object:
    """Data that JSON lacks; an object counts by its type, as its address differs."""
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return f"{type(value).__module__}.{type(value).__qualname__}"
