// The official client of Anthropic: messages, whole and streamed, through its accumulator.
import Anthropic from "@anthropic-ai/sdk";
import { serve } from "./driver.mjs";

await serve(async ({ url, asked, leave = false }, said) => {
  const client = new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 });
  if (!asked.stream) {
    said.message = await client.messages.create(asked);
    return;
  }
  said.deltas = [];
  const stream = client.messages.stream(asked);
  stream.on("text", (delta) => {
    said.deltas.push(delta);
    if (leave) stream.abort();
  });
  said.message = await stream.finalMessage();
});
