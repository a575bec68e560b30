"""Quick and alone: one thread, no network, the same examples every time."""

from __future__ import annotations

import gc
import os
import random
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest
import torch
from hypothesis import settings
from transformers.utils import logging

from tests.remembered import remember

if TYPE_CHECKING:
    from tests.emulated import Cuda

remember()
os.fsync = lambda handle: None  # no test cuts the power, and disks take their time
torch.set_num_threads(1)  # two threads spin on two shared cores
logging.disable_progress_bar()
settings.register_profile(
    "quick", deadline=None, derandomize=True, print_blob=True, max_examples=40
)
settings.load_profile("quick")


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Each test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device; torch sees none")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    """Modules stay: no collection of garbage looks at them again. Each training asks for one."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    """A CUDA device that the CPU emulates; counts captures."""
    from tests.emulated import Cuda

    return Cuda(monkeypatch)


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each step that chose its tokens on the device."""
    from tests.ahead import count_ahead

    return count_ahead(monkeypatch)
