"""Whether the CUDA path is right and fast: the first program to run on a new GPU.

    python benchmarks/gpu_check.py [--cpu] [--tiny] [--only NAME]

Each line says PASS or FAIL, or gives a figure; the program ends with 1 when a check has failed.
It downloads nothing, and is meant to take less than eight minutes on one H100.

- `equal`: rollouts over captured graphs equal those of `cached`, for every family.
- `draws`: tokens that captured steps draw equal those that `cached` draws, in fp64.
- `twin`: the text twin stays on the device and shares every weight.
- `freed`: buffers that are let go are freed without the garbage collector.
- `last_column`: captures in the last column of a buffer; in a process of its own, because a write
  past the buffer ends the CUDA context.
- `failed`: after a capture that fails, the process runs on, captures again, and does not repeat the
  failure; also in a process of its own.
- `speed`: steps, runs and decoding at the paper's shapes against the roofline, captures for answers
  of unequal length, and memory. CUDA only; left out by `--tiny`.

`--cpu` runs all but the last on a CPU, with the executor `static` in the place of `cuda_graph`.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from transformers.utils import logging

import latentmas as lm
from latentmas.backbones import LoadedBackbone
from latentmas.engine import Packed, executors
from latentmas.engine import cuda_graphs as replay
from latentmas.generation import batch as decoding
from latentmas.testing import TINY_FAMILIES, random_system, tiny_backbone

SHAPES = ((3, 40, 7, 8), (4, 61, 0, 4), (32, 100, 30, 40))
"""Rows, prompt columns, columns of padding in the first row, latent steps."""
COMPARED = 4
"""Latent steps that are compared: random models multiply rounding errors with each step."""
BATCH, PROMPT, STEPS = 32, 200, 48
"""Rows, prompt columns and latent steps of the speed checks."""
BANDWIDTH = {"h200": 4.0e12, "h100": 3.0e12}
"""Bytes a second that a card really reads."""


class Captures:
    """Times every capture from now on."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.failed = 0
        self._plain = replay.capture
        replay.capture = self._timed

    def _timed(self, step: Callable[[], None], **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return self._plain(step, **options)
        except RuntimeError:
            self.failed += 1
            raise
        finally:
            self.seconds.append(time.perf_counter() - began)

    def clear(self) -> None:
        """Count from zero again."""
        self.seconds.clear()
        self.failed = 0


class Check:
    """Runs checks on one device and prints a line for each."""

    def __init__(self, device: str, *, tiny: bool) -> None:
        self.device, self.tiny = device, tiny
        self.executor = "cuda_graph" if device == "cuda" else "static"
        self.captures = Captures()
        self.failures = 0
        self._began = time.monotonic()

    def tell(self, text: str, passed: bool | None = None) -> None:
        """Print a line; None is a figure."""
        word = {True: "PASS", False: "FAIL", None: "    "}[passed]
        self.failures += passed is False
        print(f"{time.monotonic() - self._began:5.0f}s {word} {text}", flush=True)

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, way: Callable[[], Any]) -> float:
        """Seconds of a call, the device's work included."""
        self.synchronise()
        began = time.perf_counter()
        way()
        self.synchronise()
        return time.perf_counter() - began

    def pair(self, family: str) -> tuple[lm.System, LoadedBackbone, Any]:
        """A system of two agents, the first one's backbone and its inner link."""
        backbone = tiny_backbone(family, 64, layers=4)
        graph = lm.templates.distillation(
            expert=backbone, learner=backbone, latent_steps=4, link="recursive", inner="recursive"
        )
        system = graph.compile().load(self.device)
        return system, system.backbone_of("expert"), system.link("inner.expert")

    def rollout(self, executor: str, given: tuple[Any, ...]) -> torch.Tensor:
        """Latent states of (backbone, inner link, prompt, steps)."""
        states = executors.get(executor)().rollout(*given)
        self.synchronise()
        return states


def packed(backbone: LoadedBackbone, rows: int, columns: int, padding: int = 0) -> Packed:
    """A batch of random prompts whose first row is padded."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 250, (rows, columns), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, :padding] = 0
    lengths = (columns - padding, *[columns] * (rows - 1))
    return Packed(backbone.embed(ids), mask.to(backbone.device), lengths, 0, ids)


def token(backbone: LoadedBackbone, rows: int) -> torch.Tensor:
    """One token's embedding for each row, (B, 1, D)."""
    return backbone.embed(torch.full((rows, 1), 9))


def check_equal(check: Check) -> None:
    """Rollouts equal those of `cached`; the second one replays what the first has captured."""
    for family in TINY_FAMILIES[:2] if check.tiny else TINY_FAMILIES:
        _, backbone, inner = check.pair(family)
        for rows, columns, padding, steps in SHAPES[:2] if check.tiny else SHAPES:
            given = backbone, inner, packed(backbone, rows, columns, padding), steps
            wanted = check.rollout("cached", given)
            found = [check.rollout(check.executor, given) for _ in range(2)]
            scale = wanted.abs().max()
            error = max(float((h - wanted)[:, :COMPARED].abs().max() / scale) for h in found)
            shape = f"{rows} rows, {columns} columns, {padding} of padding, {steps} steps"
            check.tell(f"{family}, {shape}: differs from cached by {error:.1e}", error < 1e-4)
    count, failed = len(check.captures.seconds), check.captures.failed
    made = check.device == "cpu" or count > 0
    check.tell(f"captures that failed: {failed} of {count}", made and not failed)


def check_draws(check: Check) -> None:
    """Seven answers, of which three at a time are written, twice."""
    tiny = tiny_backbone("llama", 32, layers=2)
    graph = lm.templates.distillation(expert=tiny, learner=tiny, latent_steps=4)
    system = graph.compile().load(check.device, dtype="float64").double()
    samples = ["x" * (n % 5) for n in range(7)]
    limits: dict[str, Any] = {"max_new_tokens": 40, "batch_size": 3, "refill_threshold": 0.5}
    for filters in ({"top_k": 5}, {"top_k": 50, "top_p": 0.9}, {"top_k": 200, "min_p": 0.01}):
        how = {**limits, "do_sample": True, "temperature": 1.5, **filters}
        wanted = system.run(samples, executor="cached", **how).token_ids
        found = [system.run(samples, executor=check.executor, **how).token_ids for _ in range(2)]
        check.tell(f"draws with {filters} equal those of cached", found == [wanted] * 2)


def check_twin(check: Check) -> None:
    """The twin shares the loaded backbones where they are."""
    system, backbone, _ = check.pair("llama")
    check.synchronise()
    before = torch.cuda.memory_allocated() if check.device == "cuda" else 0
    twin = system.text_twin(max_new_tokens=2)
    more = torch.cuda.memory_allocated() - before if check.device == "cuda" else 0
    shared = all(twin.backbone_of(name) is own for name, own in system.agent_backbones.items())
    twin.run(["What is 3 + 4?"], max_new_tokens=2)
    text = f"the text twin shares its backbones on {backbone.device}, {more} bytes more"
    check.tell(text, shared and more == 0)


def check_freed(check: Check) -> None:
    """Buffers go with the last reference to them."""
    _, backbone, inner = check.pair("llama")
    given = backbone, inner, packed(backbone, 3, 40), 4
    gc.collect()
    gc.disable()
    try:
        check.rollout(check.executor, given)
        held = [weakref.ref(buffers) for buffers in backbone.workspace[replay.POOL].held]
        backbone.workspace.clear()
        left = sum(buffers() is not None for buffers in held)
    finally:
        gc.enable()
    check.tell(f"buffers still there after they were let go: {left} of {len(held)}", not left)


def check_last_column(check: Check) -> None:
    """Steps that are captured when one column is left, after a prompt and after rows have left."""
    _, backbone, inner = check.pair("llama")
    for columns in (63, 95):
        check.rollout(check.executor, (backbone, inner, packed(backbone, 3, columns), 2))
    feed = executors.get(check.executor)().session(backbone)
    feed.reserve(16)
    feed.prefill(packed(backbone, 4, 48))
    for _ in range(15):
        feed.feed(token(backbone, 4))
    feed.select([0, 1])
    feed.feed(token(backbone, 2))
    check.synchronise()
    check.tell("captures in the last column of a buffer", True)


def check_failed(check: Check) -> None:
    """A step that reads back to the host cannot be captured; everything after it can go on."""
    _, backbone, inner = check.pair("llama")
    given = backbone, inner, packed(backbone, 3, 40), 4
    plain = replay.one_step

    def reads_back(*args: Any) -> None:
        plain(*args)
        float(args[1].h_BD.sum())

    replay.one_step = reads_back
    for _ in range(2):
        check.rollout(check.executor, given)
        backbone.workspace[replay.POOL].clear()
    replay.one_step = plain
    if check.device == "cuda":
        tried = len(check.captures.seconds)
        check.tell(f"a capture that fails is tried {tried} times (1)", tried == 1)
        here = torch.cuda.current_stream() == torch.cuda.default_stream()
        check.tell("the thread has left the capture stream", here)
    backbone.workspace.clear()
    check.captures.clear()
    error = check.rollout(check.executor, given) - check.rollout("cached", given)
    fine = float(error.abs().max()) < 1e-3 and not check.captures.failed
    check.tell("rollouts after a failed capture equal cached", fine)


def check_speed(check: Check) -> None:
    """The paper's light team with random weights: steps, runs, decoding, captures, memory."""
    graph = lm.templates.sequential_light(rounds=3, latent_steps=STEPS)
    system = random_system(graph.compile(), device=check.device)
    card = "h200" if "H200" in torch.cuda.get_device_name() else "h100"
    for agent in ("planner", "critic", "solver"):
        _time_steps(check, system, agent, BANDWIDTH[card])
    questions = ["word " * n for n in (20, 24, 28, 32) * (BATCH // 4)]
    _time_runs(check, system, questions, card)
    _time_decoding(check, system, questions)
    _count_captures(check, system, questions * 3)
    _weigh(check, system)


def _time_steps(check: Check, system: lm.System, agent: str, bandwidth: float) -> None:
    """Milliseconds of a latent step on each executor, and those of reading the weights once."""
    backbone, inner = system.backbone_of(agent), system.link(f"inner.{agent}")
    prompt, told, step = packed(backbone, BATCH, PROMPT, 30), list[str](), 0.0
    ways: list[tuple[str, dict[str, Any]]] = [("cached", {}), (check.executor, {})]
    ways += [(check.executor, {"compile_step": True})] if agent == "critic" else []
    check.captures.clear()
    for name, options in ways:
        feed = executors.get(name)(**options).session(backbone)
        feed.reserve(4 * STEPS)
        check.synchronise()
        began = time.perf_counter()
        h_BD = feed.prefill(prompt)
        check.synchronise()
        prefill = time.perf_counter() - began
        feed.roll(inner, h_BD, 2)
        times = [
            check.seconds(lambda f=feed, h=h_BD: f.roll(inner, h, STEPS)) / STEPS for _ in range(3)
        ]
        step = statistics.median(times) * 1e3
        compiled = ", compiled" if options else ""
        told.append(f"{name}{compiled}: prefill {prefill * 1e3:.0f} ms, step {step:.2f} ms")
        feed.close()
    weights = [p for name, p in backbone.model.named_parameters() if "embed" not in name]
    floor = sum(p.nbytes for p in weights) / bandwidth * 1e3
    capture = statistics.median(check.captures.seconds or [0]) * 1e3
    text = f"{agent}: {'; '.join(told)}; floor {floor:.2f} ms; a capture {capture:.0f} ms"
    check.tell(f"{text} (target: step under 3 floors)", step < 3 * floor)


def _time_runs(check: Check, system: lm.System, questions: list[str], card: str) -> None:
    """Seconds of the latent phase, first and last run of each executor."""
    last = 0.0
    for executor, count in (("reference", 1), ("cached", 2), (check.executor, 3)):
        times = [
            check.seconds(
                lambda e=executor: system.run(
                    questions, executor=e, max_new_tokens=1, batch_size=BATCH
                )
            )
            for _ in range(count)
        ]
        last = times[-1]
        check.tell(f"latent phase, {executor}: first {times[0]:.2f} s, last {last:.2f} s")
    floor = system.explain(questions, card, max_new_tokens=1).seconds or 0.0
    check.tell(f"latent phase: floor {floor:.2f} s (target: under 4 floors)", last < 4 * floor)


def _time_decoding(check: Check, system: lm.System, questions: list[str]) -> None:
    """Milliseconds a token: a run of 257 tokens less one of a single token."""
    ways: dict[str, dict[str, Any]] = {"greedy": {}, "sampled": {"do_sample": True, "top_p": 0.95}}
    ways["sampled in the graph"] = {"do_sample": True, "top_k": 50}
    for name, how in ways.items():
        one, many = (
            check.seconds(
                lambda n=count, h=how: system.run(
                    questions, executor=check.executor, max_new_tokens=n, batch_size=BATCH, **h
                )
            )
            for count in (1, 257)
        )
        each = (many - one) / 256
        check.tell(f"decoding {BATCH} rows, {name}: {each * 1e3:.2f} ms a step (5)", each < 5e-3)


def _count_captures(check: Check, system: lm.System, questions: list[str]) -> None:
    """Captures of two runs, and of one after a warm-up, for answers of 40 to 240 tokens."""
    end = min(system.backbone_of("solver").stop_ids)
    torch.cuda.reset_peak_memory_stats()
    plain = decoding.GenerationBatch._settle

    def settle(pool: Any, chosen: dict[int, int]) -> None:
        rows = pool._rows
        lengths = {i: 40 + rows[i].stream.initial_seed() % 200 for i in chosen}
        plain(pool, {i: end if len(rows[i].ids) >= lengths[i] else 9 for i in chosen})

    limits: dict[str, Any] = {"max_new_tokens": 256, "batch_size": BATCH}
    decoding.GenerationBatch._settle = settle
    try:
        for name in ("first run", "second run", "run after a warm-up"):
            if "warm-up" in name:
                for backbone in system.agent_backbones.values():
                    backbone.workspace.clear()
                done = system.warm_up(**limits, max_length=384, executor=check.executor)
                check.tell(str(done), done.left_out == 0)
            check.captures.clear()
            took = check.seconds(lambda: system.run(questions, executor=check.executor, **limits))
            count, lost = len(check.captures.seconds), sum(check.captures.seconds)
            text = f"{len(questions)} answers of unequal length, {name}: {took:.1f} s"
            passed = None if name == "first run" else count == 0
            check.tell(f"{text}, {count} captures that took {lost:.1f} s", passed)
    finally:
        decoding.GenerationBatch._settle = plain


def _weigh(check: Check, system: lm.System) -> None:
    """GiB before and after the kept buffers are let go."""
    held = torch.cuda.memory_allocated()
    for backbone in system.agent_backbones.values():
        backbone.workspace.clear()
    cleared = torch.cuda.memory_allocated()
    gc.collect()
    collected = torch.cuda.memory_allocated()
    peak = torch.cuda.max_memory_allocated()
    sizes = [f"{n / 2**30:.1f}" for n in (held, cleared, collected, peak)]
    text = "memory {} GiB, buffers let go {}, after gc {}, peak {}".format(*sizes)
    check.tell(text, cleared - collected < 2**28)


CHECKS: dict[str, Callable[[Check], None]] = {
    "equal": check_equal,
    "draws": check_draws,
    "twin": check_twin,
    "freed": check_freed,
    "last_column": check_last_column,
    "failed": check_failed,
    "speed": check_speed,
}
APART = ("last_column", "failed")
"""Checks with a process of their own."""


def run_apart(check: Check, name: str) -> None:
    """Run a check in a process of its own, and print its lines."""
    command = [sys.executable, __file__, "--only", name]
    command += ["--cpu"] if check.device == "cpu" else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    lines = [line for line in done.stdout.splitlines() if "PASS" in line or "FAIL" in line]
    for line in lines:
        check.tell(line.split(maxsplit=2)[2], "PASS" in line)
    if done.returncode and not any("FAIL" in line for line in lines):
        reason = (done.stderr.strip() or "no reason").splitlines()[-1]
        check.tell(f"{name}: the process ended with {done.returncode}: {reason:.150}", False)


@torch.no_grad()
def main() -> None:
    """Run the checks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="check the same code on a CPU")
    parser.add_argument("--tiny", action="store_true", help="small shapes, on a CPU too")
    parser.add_argument("--only", choices=list(CHECKS), help="one check, in this process")
    given = parser.parse_args()
    logging.disable_progress_bar()
    cuda = torch.cuda.is_available() and not given.cpu
    if not (cuda or given.cpu or given.tiny):
        parser.error("there is no CUDA device; --cpu checks the same code on a CPU")
    check = Check("cuda" if cuda else "cpu", tiny=given.tiny)
    if given.only:
        CHECKS[given.only](check)
        sys.exit(1 if check.failures else 0)
    print(torch.cuda.get_device_name() if cuda else "CPU", torch.__version__)
    for name, function in CHECKS.items():
        if name == "speed" and (given.tiny or not cuda):
            continue
        if name in APART:
            run_apart(check, name)
        else:
            function(check)
    sys.exit(1 if check.failures else 0)


if __name__ == "__main__":
    main()
