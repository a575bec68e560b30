"""What the processes of `tests/test_parallel.py` do, on each rank."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

import latentmas as lm
from latentmas.evaluation import evaluate
from latentmas.training.losses.outer import OuterLoss

SAMPLES = ["What is 3 + 4?", "Name a river"]
ROWS = [
    {"question": "1 + 2", "answer": "it is 3"},
    {"question": "What is 1 + 2 + 3?", "answer": "6"},
    {"question": "2 * 2", "answer": "the answer is four"},
    {"question": "5 - 4 =", "answer": "1"},
]


def team(source: str, link: str = "recursive", **options: Any) -> lm.Plan:
    """Three agents on one backbone, two rounds."""
    backbone = lm.Backbone(source)
    graph = lm.templates.sequential(
        planner=backbone, critic=backbone, solver=backbone, latent_steps=2, rounds=2, link=link
    )
    return graph.compile()


def furthest(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """Largest difference of two lists of tensors, over the largest number in them."""
    scale = max(float(b.abs().max()) for b in other)
    pairs = zip(one, other, strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs) / scale


def gradients(system: lm.System) -> tuple[float, list[torch.Tensor]]:
    """Loss and link gradients of two rows."""
    system.zero_grad()
    loss = OuterLoss(system, system.plan, answer_field="answer")(ROWS[:2])["loss"]
    loss.backward()
    return float(loss.detach()), [p.grad for p in system.parameters() if p.grad is not None]


def raised(call: Any) -> str:
    """The message of the error that a call raises."""
    try:
        call()
    except lm.LatentMASError as error:
        return str(error)
    return "nothing was raised"


def split_and_whole(source: str, link: str) -> dict[str, Any]:
    """Differences between a team over two processes and the same team on one."""
    plan, found = team(source, link), dict[str, Any]()
    for dtype in ("float64", "float32"):
        split, whole = plan.load(dtype=dtype, tensor_parallel=2), plan.load(dtype=dtype)
        for system in (split, whole):
            system.links.to(getattr(torch, dtype))
        options: Any = {"max_new_tokens": 6, "record": "messages"}
        for executor in ("cached", "reference"):
            one = split.run(SAMPLES, executor=executor, **options)
            other = whole.run(SAMPLES, executor=executor, **options)
            assert one.token_ids == other.token_ids
            found[f"{dtype} {executor}"] = furthest(
                list(one.messages.values()), list(other.messages.values())
            )
        (loss, grads), (loss_, grads_) = gradients(split), gradients(whole)
        found[f"{dtype} loss"] = abs(loss - loss_) / loss_
        found[f"{dtype} gradients"] = furthest(grads, grads_)
        found["trained"] = len(grads)
    weight: Any = split.backbone_of("solver").model.get_decoder().layers[0].mlp.up_proj.weight
    found["part"] = list(weight.to_local().shape), list(weight.shape)
    return found


def different_calls(source: str, folder: str) -> dict[str, str]:
    """Messages where the two processes of a group make different calls, or impossible ones."""
    system = team(source).load(tensor_parallel=2)
    rank = dist.get_rank()
    twin = system.text_twin()
    found = {
        "rows": raised(lambda: system.run(SAMPLES[: 1 + rank])),
        "options": raised(lambda: system.run(SAMPLES, max_new_tokens=2 + rank)),
        "teams": raised(lambda: (system if rank else twin).run(SAMPLES)),
        "move": raised(lambda: system.double()),
        "offload": raised(lambda: system.run(SAMPLES, executor="offload")),
        "static": raised(lambda: system.run(SAMPLES, executor="static")),
    }
    config: Any = lm.OuterConfig("unused", max_steps=1, use_cpu=True)
    rows = ROWS[rank : rank + 2]
    found["training"] = raised(lambda: lm.OuterTrainer(system, config, train_dataset=rows))
    output = f"{folder}/rows.jsonl"
    for count in (2, 4):  # the second continues the first
        options: Any = {"output": output, "resume": count == 4, "max_new_tokens": 2}
        done = evaluate(system, ROWS[:count], grader=lambda text, gold: True, **options)
        found[f"evaluated {count}"] = str(done.score)
    system.run(SAMPLES, max_new_tokens=1, manifest=f"{folder}/run-{rank}.json")
    same = twin.run(SAMPLES, max_new_tokens=2)  # processes still agree after all these errors
    found["after"] = str(same.token_ids)
    return found


def train(source: str, folder: str, tensor_parallel: int, size: int) -> dict[str, Any]:
    """Two steps of the outer loop; `size` rows for each group."""
    plan = team(source)
    system = plan.load(tensor_parallel=tensor_parallel)
    config = lm.OuterConfig(
        folder,
        max_steps=2,
        use_cpu=True,
        per_device_train_batch_size=size,
        per_device_eval_batch_size=1,
        learning_rate=1e-3,
        logging_steps=1,
        probe_stability=False,
        rollout_rows=0,
        eval_exact_match=False,
    )
    trainer = lm.OuterTrainer(system, config, train_dataset=ROWS, eval_dataset=ROWS)
    trainer.train()
    found = {"eval": trainer.evaluate()["eval_loss"], "loss": trainer.state.log_history[0]["loss"]}
    found["digest"] = lm.runtime.link_digests(system) if dist.is_initialized() else None
    if system.mesh is not None:
        mesh, questions = system.mesh, [row["question"] for row in ROWS]
        own = system.run(mesh.share(questions), max_new_tokens=3)
        found["ids"] = mesh.gather(own.token_ids)
        found["place"] = [mesh.replica, mesh.rank, mesh.writes]
    if trainer.is_world_process_zero():
        system.save_pretrained(f"{folder}/team")
    return found
