// What the drivers have in common: a JSON document a line in, one out. A failure is an answer like any other.
import { createInterface } from "node:readline";

/** Answer each line of stdin with what `work` makes of it; `said` is what a failed answer had come to before. */
export async function serve(work) {
  for await (const line of createInterface({ input: process.stdin })) {
    const said = {};
    try {
      await work(JSON.parse(line), said);
    } catch (error) {
      said.error = describe(error);
    }
    process.stdout.write(JSON.stringify(said) + "\n");
  }
}

/** What a program can tell an error by; `body` is what the SDK has kept of the reply's. */
export function describe(error) {
  const { status, statusCode, code, message } = error;
  const body = error.error ?? error.responseBody ?? error.data ?? null;
  return { class: error.constructor.name, status: status ?? statusCode ?? null, code: code ?? null, message, body };
}
