"""Teaches: declare a team, compile it, run it; tiny random models, nothing is downloaded."""

import latentmas as lm
from latentmas.testing import tiny_backbone

graph = lm.Graph("pair", inputs=["question"], rounds=2, latent_steps=4)
graph.add_agent(
    "expert",
    tiny_backbone("llama", 32),
    prompt="{% if feedback %}{{ feedback }}{% endif %}Plan an answer to: {{ question }}",
)
graph.add_agent(
    "learner",
    tiny_backbone("qwen3", 16),
    prompt="Plan: {{ expert }}\nQuestion: {{ question }}",
    max_new_tokens=8,
)
graph.connect("expert", "learner")
graph.feedback("learner", "expert.feedback")
graph.output("learner")

plan = graph.compile()
print(plan.summary())
result = plan.load().run(["What is 3 + 4?"], record=("messages",))
print({name: tuple(message.shape) for name, message in result.messages.items()})
print(result.summary())
