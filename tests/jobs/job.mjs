// A job in plain Node (18 or later, no packages) that does all that a job can do: what `from pgsig import run` does, over HTTP and files.
import { readFileSync } from "node:fs";

const run = JSON.parse(readFileSync(process.env.PGSIG_RUN_FILE, "utf8"));
const stopping = new AbortController();
process.on("SIGTERM", () => stopping.abort());  // asked to end: within `grace` it may do so in its own way

// One call. Anything but a status 200 is {"error": {code, message, fix}}: PS402 and PS403 mean that this attempt is over.
async function call(method, path, body) {
  const answer = await fetch(run.url + path, {
    method, signal: method === "GET" ? stopping.signal : undefined,
    headers: { authorization: `Bearer ${run.token}`, "content-type": "application/json" },
    body: method === "GET" ? undefined : JSON.stringify(body ?? {}),
  });
  const document = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(document.error.message), document.error);
  return document;
}

// What it is, and why it runs.
console.log(`${run.workflow}.${run.operator} attempt ${run.attempt} of generation ${run.generation} for "${run.subject}"`);
console.log(`params ${JSON.stringify(run.params)} cause ${JSON.stringify(run.cause.map((s) => [s.key, s.value]))}`);

// Emit one signal, or several: all or none. The same event_id twice is one signal.
const { ids: [first] } = await call("POST", "/emit", { key: "node.said", value: { n: 1 }, subject: run.subject, event_id: `said-${run.id}` });
const { ids: [again, second] } = await call("POST", "/emit", [
  { key: "node.said", value: { n: 1 }, subject: run.subject, event_id: `said-${run.id}` }, { key: "node.said", value: 2 },
]);
console.log(`emitted ${second > first && again === first}`);

await call("POST", "/progress", { done: 1, total: 2, text: "half of it" });
await call("POST", "/ready");
const beat = run.heartbeat ? setInterval(() => call("POST", "/heartbeat").catch(console.error), run.heartbeat * 250) : undefined;

// Reloads, one after the other; each is acknowledged, or has failed with a reason and is followed by a restart.
async function reloads() {
  while (!stopping.signal.aborted) {
    const reload = await call("GET", "/reload?wait=25");
    if (!reload.id) continue;
    const bad = reload.cause.some((signal) => signal.value === "bad");
    console.log(`reload ${JSON.stringify(reload.cause.map((signal) => signal.value))}`);
    await call("POST", `/reload/${reload.id}`, bad ? { error: "a bad configuration" } : {});
  }
}

// Signals as they are committed. The cursor is kept as the checkpoint: the next attempt, or the next run, goes on behind the last one handled.
async function listen() {
  let cursor = run.checkpoint?.cursor ?? "", heard = run.checkpoint?.heard ?? 0;
  console.log(`heard ${heard} before`);
  while (!stopping.signal.aborted) {
    const page = await call("GET", `/signals?pattern=config.**&after=${encodeURIComponent(cursor)}&wait=25`);
    for (const signal of page.signals) {
      heard += 1;
      console.log(`heard ${signal.key} ${JSON.stringify(signal.value)}`);
      cursor = signal.cursor;
      await call("POST", "/checkpoint", { cursor, heard });
      await call("POST", "/result", { heard });
      if (signal.value === "crash") process.exit(3);
    }
    cursor = page.cursor;
  }
}

await Promise.all([reloads(), listen()].map((work) => work.catch((error) => { if (!stopping.signal.aborted) throw error; })));
clearInterval(beat);
console.log("ended in good order");
