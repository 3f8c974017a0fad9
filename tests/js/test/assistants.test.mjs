// Assistants, threads and messages; runs are in `embedded`.
import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";

import { all, client, errorOf, WEATHER } from "../client.mjs";

const { assistants, threads } = client.beta;
const user = (content) => ({ role: "user", content });

test("an assistant is made, changed, listed and deleted", async () => {
  const made = await assistants.create({
    model: "talker",
    name: "Guide",
    instructions: "Be brief.",
    tools: [WEATHER],
    metadata: { a: "b" },
  });
  assert.deepEqual(await assistants.retrieve(made.id), made);
  const changed = await assistants.update(made.id, { name: "Cook", temperature: 0.5, tools: [] });
  assert.deepEqual(changed, { ...made, name: "Cook", temperature: 0.5, tools: [] });
  const listed = await all(assistants.list({ limit: 1 }));
  assert.ok(listed.some((each) => each.id === made.id));
  assert.equal((await assistants.delete(made.id)).deleted, true);
  assert.ok((await errorOf(assistants.retrieve(made.id))) instanceof OpenAI.NotFoundError);
});

test("assistants are listed page after page in both orders", async () => {
  const made = [];
  for (const name of ["1", "2", "3"]) {
    made.push((await assistants.create({ model: "talker", name })).id);
  }
  for (const order of ["asc", "desc"]) {
    const ids = (await all(assistants.list({ order, limit: 2 }))).map((each) => each.id);
    const wanted = order === "asc" ? made : made.toReversed();
    assert.deepEqual(ids.filter((id) => made.includes(id)), wanted);
  }
});

test("a thread is made, changed and deleted", async () => {
  const thread = await threads.create({ metadata: { a: "b" } });
  const changed = await threads.update(thread.id, { metadata: { c: "d" } });
  assert.deepEqual(changed, { ...thread, metadata: { c: "d" } });
  assert.deepEqual(await threads.retrieve(thread.id), changed);
  assert.equal((await threads.delete(thread.id)).deleted, true);
  assert.ok((await errorOf(threads.retrieve(thread.id))) instanceof OpenAI.NotFoundError);
});

test("a thread keeps its messages in order, page after page", async () => {
  const thread = await threads.create({ messages: [user("0")] });
  for (const text of ["1", "2", "3", "4"]) await threads.messages.create(thread.id, user(text));
  const listed = await all(threads.messages.list(thread.id, { limit: 2, order: "asc" }));
  const texts = listed.map((message) => message.content[0].text.value);
  assert.deepEqual(texts, ["0", "1", "2", "3", "4"]);

  const pages = [];
  const first = await threads.messages.list(thread.id, { limit: 2 });
  for await (const page of first.iterPages()) pages.push(page.data.length);
  assert.deepEqual(pages, [2, 2, 1]);
});

test("a message is changed and deleted", async () => {
  const { id: thread_id } = await threads.create();
  const made = await threads.messages.create(thread_id, {
    role: "assistant",
    content: [{ type: "text", text: "Hi" }],
  });
  const changed = await threads.messages.update(made.id, { thread_id, metadata: { a: "b" } });
  assert.deepEqual(changed, { ...made, metadata: { a: "b" } });
  assert.deepEqual(await threads.messages.retrieve(made.id, { thread_id }), changed);
  assert.equal((await threads.messages.delete(made.id, { thread_id })).deleted, true);
  assert.deepEqual(await all(threads.messages.list(thread_id)), []);
});

test("a message cites its file", async () => {
  const file = await client.files.create({
    file: new File(["My name is Ada."], "note.txt"),
    purpose: "assistants",
  });
  const attachments = [{ file_id: file.id, tools: [{ type: "file_search" }] }];
  const thread = await threads.create({ messages: [{ ...user("Who am I?"), attachments }] });
  const [message] = await all(threads.messages.list(thread.id));
  assert.deepEqual(message.attachments, attachments);
});

test("errors of assistants and threads name the place", async () => {
  const { id } = await threads.create();
  const missing = await errorOf(threads.messages.retrieve("msg_nobody", { thread_id: id }));
  assert.ok(missing instanceof OpenAI.NotFoundError);
  assert.match(missing.message, /msg_nobody/);

  const model = await errorOf(assistants.create({ model: "talkr" }));
  assert.equal(model.param, "model");
  assert.equal(model.code, "model_not_found");

  const hot = await errorOf(assistants.create({ model: "talker", temperature: 3 }));
  assert.ok(hot instanceof OpenAI.BadRequestError);
  assert.equal(hot.param, "temperature");

  const long = await errorOf(threads.create({ metadata: { a: "b".repeat(513) } }));
  assert.equal(long.param, "metadata.a");

  const cursor = await errorOf(threads.messages.list(id, { after: "msg_nobody" }));
  assert.ok(cursor instanceof OpenAI.BadRequestError);
  assert.equal(cursor.param, "after");
});
