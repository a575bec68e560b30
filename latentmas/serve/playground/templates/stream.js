// A run's messages as they arrive. Aborting the signal closes the connection, which stops the run.
async function* ask(request, signal) {
  const headers = { "Content-Type": "application/json" };
  if (byId("key").value) headers.Authorization = `Bearer ${byId("key").value}`;
  const body = JSON.stringify(request);
  const response = await fetch("playground/ask", { method: "POST", headers, body, signal });
  if (!response.ok) throw new Error(await refusal(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      if (block.startsWith("data: ")) yield JSON.parse(block.slice(6));
    }
  }
}

async function refusal(response) {
  if (response.status === 401) {
    byId("key-part").hidden = false;
    byId("key").focus();
    return "This server asks for its API key. Enter it and ask again.";
  }
  const text = await response.text();
  try {
    return JSON.parse(text).error.message;
  } catch {
    return `The server answered with status ${response.status}: ${text.slice(0, 300)}`;
  }
}
