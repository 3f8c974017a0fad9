// Conversations and their items.
import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";

import { all, client, errorOf } from "../client.mjs";

const { conversations, responses } = client;
const USER = { role: "user", content: "My name is Anna." };
const ASSISTANT = { role: "assistant", content: "Nice to meet you, Anna." };
const respond = (conversation, input, options = {}) =>
  responses.create({
    model: "@openworks/tiny-chat",
    input,
    conversation,
    temperature: 0,
    ...options,
  });
const itemsOf = (id) => all(conversations.items.list(id, { order: "asc", limit: 2 }));

test("a conversation is made, changed and deleted", async () => {
  const made = await conversations.create({ items: [USER], metadata: { a: "b" } });
  const changed = await conversations.update(made.id, { metadata: { c: "d" } });
  assert.deepEqual(changed, { ...made, metadata: { c: "d" } });
  assert.deepEqual(await conversations.retrieve(made.id), changed);
  assert.equal((await conversations.delete(made.id)).deleted, true);
  assert.ok((await errorOf(conversations.retrieve(made.id))) instanceof OpenAI.NotFoundError);
});

test("items are added, listed page after page, found and removed", async () => {
  const { id: conversation_id } = await conversations.create();
  const items = [USER, ASSISTANT, { role: "user", content: "Hello" }];
  const added = (await conversations.items.create(conversation_id, { items })).data;
  assert.deepEqual(await itemsOf(conversation_id), added);
  const [{ id }] = added;
  assert.deepEqual(await conversations.items.retrieve(id, { conversation_id }), added[0]);
  assert.equal((await conversations.items.delete(id, { conversation_id })).id, conversation_id);
  assert.deepEqual(await itemsOf(conversation_id), added.slice(1));
});

test("a response adds what was said, and the next one recalls it", async () => {
  const { id } = await conversations.create();
  await respond(id, USER.content);
  const told = await all(await respond(id, "What is my name?", { stream: true }));
  assert.match(told.at(-1).response.output[0].content[0].text, /Anna/);
  assert.deepEqual((await itemsOf(id)).map((item) => item.role), [
    "user",
    "assistant",
    "user",
    "assistant",
  ]);
});

test("errors of conversations name the place", async () => {
  const { id: conversation_id } = await conversations.create();
  const missing = await errorOf(conversations.items.retrieve("msg_x", { conversation_id }));
  assert.ok(missing instanceof OpenAI.NotFoundError);
  assert.match(missing.message, /msg_x/);
  const items = [{ role: "nobody", content: "x" }];
  const bad = await errorOf(conversations.items.create(conversation_id, { items }));
  assert.ok(bad instanceof OpenAI.BadRequestError);
  assert.equal(bad.param, "items[0].role");
});
