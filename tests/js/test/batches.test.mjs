// Batches of every endpoint.
import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";

import { all, client, errorOf, HELLO, LONG_SCHEMA, settled } from "../client.mjs";

const CHAT = "/v1/chat/completions";
const BODIES = {
  [CHAT]: { model: "talker", messages: HELLO, max_tokens: 5 },
  "/v1/completions": { model: "talker", prompt: "Once", max_tokens: 5 },
  "/v1/embeddings": { model: "encoder", input: "Once" },
  "/v1/responses": { model: "talker", input: "Hello", max_output_tokens: 16 },
};
const UNDER_WAY = ["validating", "in_progress", "finalizing", "cancelling"];

const line = (custom_id, url = CHAT, body = {}) => ({
  custom_id,
  method: "POST",
  url,
  body: { ...BODIES[url], ...body },
});

async function begin(lines, options = {}) {
  const text = lines.map((each) => JSON.stringify(each)).join("\n");
  const file = await client.files.create({ file: new File([text], "a.jsonl"), purpose: "batch" });
  return client.batches.create({
    completion_window: "24h",
    endpoint: CHAT,
    input_file_id: file.id,
    ...options,
  });
}

const ended = (batch) => settled(() => client.batches.retrieve(batch.id), UNDER_WAY);

async function contentOf(fileId) {
  const text = await (await client.files.content(fileId)).text();
  return text.trimEnd().split("\n").map((each) => JSON.parse(each));
}

for (const endpoint of Object.keys(BODIES)) {
  test(`a batch of ${endpoint} is answered`, async () => {
    const names = ["a", "b", "c"];
    const begun = await begin(names.map((name) => line(name, endpoint)), { endpoint });
    assert.equal(begun.status, "validating");
    const done = await ended(begun);
    assert.equal(done.status, "completed");
    assert.deepEqual(done.request_counts, { total: 3, completed: 3, failed: 0 });
    const output = await contentOf(done.output_file_id);
    assert.deepEqual(output.map((each) => each.custom_id), names);
    for (const { response, error } of output) {
      assert.deepEqual([response.status_code, error], [200, null]);
      assert.ok(response.body.usage.total_tokens);
    }
  });
}

test("what fails is in the error file", async () => {
  const done = await ended(await begin([line("good"), line("hot", CHAT, { temperature: 9 })]));
  assert.deepEqual(done.request_counts, { total: 2, completed: 1, failed: 1 });
  const [error] = await contentOf(done.error_file_id);
  assert.equal(error.custom_id, "hot");
  assert.equal(error.response.body.error.param, "temperature");
});

test("a batch with a bad line fails and names it", async () => {
  const done = await ended(await begin([line("a"), line("a")]));
  assert.equal(done.status, "failed");
  const [error] = done.errors.data;
  assert.deepEqual([error.line, error.code], [2, "duplicate_custom_id"]);
});

test("batches are listed page after page", async () => {
  const made = [];
  for (const n of ["0", "1", "2"]) made.push((await begin([line("a")], { metadata: { n } })).id);
  const listed = (await all(client.batches.list({ limit: 2 }))).filter((batch) =>
    made.includes(batch.id),
  );
  assert.deepEqual(listed.map((batch) => batch.metadata.n), ["2", "1", "0"]);
});

test("every line of a cancelled batch is told of", async () => {
  const endless = {
    response_format: { type: "json_schema", json_schema: LONG_SCHEMA },
    max_tokens: 3000,
  };
  const names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
  const begun = await begin(names.map((name) => line(name, CHAT, endless)));
  await settled(() => client.batches.retrieve(begun.id), ["validating"]);
  const asked = await client.batches.cancel(begun.id);
  assert.ok(["cancelling", "cancelled"].includes(asked.status));
  const done = await ended(asked);
  assert.equal(done.status, "cancelled");
  const files = [done.output_file_id, done.error_file_id].filter(Boolean);
  const lines = (await Promise.all(files.map(contentOf))).flat();
  assert.deepEqual(lines.map((each) => each.custom_id).sort(), names);
  assert.ok(lines.some((each) => each.error?.code === "batch_cancelled"));
});

test("errors of batches have the classes of the SDK", async () => {
  const missing = await errorOf(client.batches.retrieve("batch_nobody"));
  assert.ok(missing instanceof OpenAI.NotFoundError);
  const input = await errorOf(begin([line("a")], { input_file_id: "file-nobody" }));
  assert.ok(input instanceof OpenAI.BadRequestError);
  assert.equal(input.param, "input_file_id");
  const done = await ended(await begin([line("a")]));
  const over = await errorOf(client.batches.cancel(done.id));
  assert.ok(over instanceof OpenAI.ConflictError);
});
