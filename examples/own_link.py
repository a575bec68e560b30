"""Teaches: a link kind of your own, in this file: register it, compile, run, train three steps."""

import torch
from torch import nn

import latentmas as lm
from latentmas.links import LinkOptions
from latentmas.testing import tiny_backbone


class GatedOptions(LinkOptions):
    """Options are checked when the graph compiles; an unknown one is an error with its code."""

    bias: bool = True


@lm.link_kinds.register("gated")
class Gated(lm.Link):
    """A gate over a linear map: sigmoid(G h) * V h."""

    Options = GatedOptions

    def __init__(self, options, in_dim, out_dim):
        super().__init__(options, in_dim, out_dim)
        self.value = nn.Linear(in_dim, out_dim, bias=options.bias)
        self.gate = nn.Linear(in_dim, out_dim, bias=options.bias)

    def forward(self, h_BKS):
        return torch.sigmoid(self.gate(h_BKS)) * self.value(h_BKS)


wide, narrow = tiny_backbone("llama", 32), tiny_backbone("qwen3", 16)
graph = lm.Graph("gated-pair", inputs=["question"], rounds=1, latent_steps=3)
graph.add_agent("expert", wide, prompt="Plan: {{ question }}")
graph.add_agent("learner", narrow, prompt="{{ expert }}\n{{ question }}", max_new_tokens=4)
graph.connect("expert", "learner", link="gated", bias=False)  # 32 -> 16: the compiler settles it
graph.output("learner")

plan = graph.compile()
link_id = "outer.expert->learner.expert"
print(plan.link(link_id).kind, plan.link(link_id).n_parameters)  # 2 * 32 * 16

system = plan.load()
before = system.link(link_id).value.weight.detach().clone()
rows = [{"question": f"{n} + 1 =", "answer": str(n + 1)} for n in range(8)]
lm.OuterTrainer(system, lm.OuterConfig("out", max_steps=3), train_dataset=rows).train()
print("trained:", not torch.equal(before, system.link(link_id).value.weight))
print(len(system.run(["2 + 1 ="]).texts), "answer")
