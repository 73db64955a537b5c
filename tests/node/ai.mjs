// Vercel's `ai`, with its providers for OpenAI (chat completions and Responses) and Anthropic.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, jsonSchema, streamText, tool } from "ai";
import { serve } from "./driver.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

const models = {
  chat: (url) => createOpenAI({ baseURL: `${url}/v1`, apiKey: "none" }).chat("tiny"),
  responses: (url) => createOpenAI({ baseURL: `${url}/v1`, apiKey: "none" }).responses("tiny"),
  anthropic: (url) => createAnthropic({ baseURL: `${url}/v1`, apiKey: "none" })("tiny"),
};
const parameters = { type: "object", properties: { city: { type: "string" } } };
const tools = Object.fromEntries(
  ["get_weather", "get_time"].map((name) => [name, tool({ description: name, inputSchema: jsonSchema(parameters) })]),
);

await serve(async ({ url, api, stream = false, leave = false }, said) => {
  const leaving = new AbortController();
  const asked = { model: models[api](url), prompt: "hello", tools, maxRetries: 0, abortSignal: leaving.signal };
  let answer;
  if (stream) {
    said.deltas = [];
    answer = streamText({ ...asked, onError: () => {} });
    for await (const part of answer.fullStream) {
      if (part.type === "text-delta") {
        said.deltas.push(part.text);
        if (leave) leaving.abort();
      } else if (part.type === "error") {
        throw part.error;
      } else if (part.type === "abort") {
        said.aborted = true;
        return;
      }
    }
  } else {
    answer = await generateText(asked);
  }
  said.text = await answer.text;
  said.reasoning = await answer.reasoningText;
  said.finish = await answer.finishReason;
  said.calls = (await answer.toolCalls).map(({ toolName, input }) => ({ name: toolName, input }));
  said.usage = await answer.usage;
});
