// A page in headless Chromium that calls the proxy from another origin, by `EventSource` and by `fetch`.
import { createServer } from "node:http";
import { chromium } from "playwright-core";
import { serve } from "./driver.mjs";

const site = createServer((_, reply) => reply.setHeader("Content-Type", "text/html").end("<!doctype html>"));
await new Promise((resolve) => site.listen(0, "127.0.0.1", resolve));
const origin = `http://127.0.0.1:${site.address().port}`;
const browser = await chromium.launch({ executablePath: process.argv[2], args: ["--no-sandbox"] });
const page = await browser.newPage();
await page.goto(origin);
process.stdout.write(JSON.stringify({ origin }) + "\n");

await serve(async ({ by, ...asked }, said) => Object.assign(said, await page.evaluate(by === "fetch" ? fetched : sourced, asked)));
await browser.close();
site.close();

/* Both run in the page. At the first event they call `next`, where they are to: what comes later was not sent before. */

async function sourced({ url, next, events, leave }) {
  const source = new EventSource(url);
  const said = { events: [], failed: false };
  await new Promise((resolve) => {
    const heard = async ({ type, data }) => {
      said.events.push([type, data]);
      if (said.events.length === 1 && next) await fetch(next);
      if (leave || said.events.length === events) resolve();
    };
    for (const name of ["message", "ping", "message_start", "content_block_delta"]) source.addEventListener(name, heard);
    source.addEventListener("error", (event) => {
      if (event.data !== undefined) said.events.push(["error", event.data]);
      else said.failed = true;
      resolve();
    });
  });
  source.close();
  return said;
}

async function fetched({ url, next, asked, headers, leave }) {
  const leaving = new AbortController();
  const said = { body: "", reads: 0, error: null };
  try {
    const body = asked && JSON.stringify(asked);
    const method = asked ? "POST" : "GET";
    const reply = await fetch(url, { method, body, headers: headers ?? {}, signal: leaving.signal });
    said.status = reply.status;
    said.headers = Object.fromEntries(reply.headers);
    const decoder = new TextDecoder();
    for await (const data of reply.body) {
      said.body += decoder.decode(data, { stream: true });
      said.reads += 1;
      if (said.reads === 1 && next) await fetch(next);
      if (leave) leaving.abort();
    }
  } catch (error) {
    said.error = error.name;
  }
  return said;
}
