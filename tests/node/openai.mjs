// The official client of OpenAI: chat completions and Responses, whole and streamed; with `accumulate`, all that its own
// accumulator has made of a stream.
import OpenAI from "openai";
import { serve } from "./driver.mjs";

await serve(async ({ url, api = "chat", asked, leave = false, accumulate = false }, said) => {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  if (accumulate) {
    said.answer = await accumulated(client, api, asked);
    return;
  }
  await (api === "chat" ? chat(client, asked, leave, said) : responses(client, asked, said));
});

async function chat(client, asked, leave, said) {
  said.texts = [];
  said.calls = [];
  said.finishes = [];
  if (!asked.stream) {
    const answer = await client.chat.completions.create(asked);
    for (const { index, message, finish_reason } of answer.choices) {
      said.texts[index] = message.content;
      said.finishes[index] = finish_reason;
      said.calls.push(...(message.tool_calls ?? []).map((call) => call.function));
    }
    said.usage = answer.usage;
    return;
  }
  const stream = await client.chat.completions.create(asked);
  for await (const { choices, usage } of stream) {
    said.usage = usage ?? said.usage;
    for (const { index, delta, finish_reason } of choices) {
      said.texts[index] = (said.texts[index] ?? "") + (delta.content ?? "");
      said.finishes[index] = finish_reason ?? said.finishes[index];
      for (const call of delta.tool_calls ?? []) {
        const known = (said.calls[call.index] ??= { name: "", arguments: "" });
        known.name += call.function.name ?? "";
        known.arguments += call.function.arguments ?? "";
      }
      if (leave && delta.content) {
        stream.controller.abort();
        return;
      }
    }
  }
}

async function responses(client, asked, said) {
  let answer;
  if (asked.stream) {
    said.deltas = [];
    const stream = client.responses.stream(asked);
    stream.on("response.output_text.delta", ({ delta }) => said.deltas.push(delta));
    answer = await stream.finalResponse();
  } else {
    answer = await client.responses.create(asked);
  }
  said.texts = [answer.output_text];
  said.status = answer.status;
  said.incomplete = answer.incomplete_details?.reason ?? null;
  said.calls = answer.output.filter((item) => item.type === "function_call");
  said.usage = answer.usage;
}

function accumulated(client, api, asked) {
  const resource = api === "chat" ? client.chat.completions : client.responses;
  if (!asked.stream) return resource.create(asked);
  const stream = resource.stream(asked);
  return api === "chat" ? stream.finalChatCompletion() : stream.finalResponse();
}
