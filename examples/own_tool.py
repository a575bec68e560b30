"""Teaches: a function of yours that an agent may call while it writes, in a team of two."""

import latentmas as lm
from latentmas.testing import tiny_backbone

CAPITALS = {"france": "Paris", "kenya": "Nairobi"}


def capital(country: str) -> str:
    """The capital of a country, or a remark that it is unknown."""
    return CAPITALS.get(country.strip().lower(), "unknown")


tiny = tiny_backbone("llama", 16)
graph = lm.Graph("geography", inputs=["question"], rounds=1, latent_steps=2)
graph.add_agent("planner", tiny, prompt="What has to be looked up? {{ question }}")
graph.add_agent(
    "writer",
    tiny,
    system="<capital>country</capital> is answered in <result>…</result>.",
    prompt="{{ planner }}\n{{ question }}",
    tools=[capital],
    max_tool_calls=2,
    max_new_tokens=8,
)
graph.connect("planner", "writer")
graph.output("writer")

system = graph.compile().load()
result = system.run(["What is the capital of Kenya?"])
print(len(result.tool_calls[0]), "calls by this random model; yours will make some")

graph.save("geography.yaml")  # the file holds the name; whoever loads it gives the function
again = lm.Graph.load("geography.yaml").compile().load(tools={"capital": capital})
print(again.run(["What is the capital of Kenya?"]).texts == result.texts)
