// Models, chats, completions and embeddings, and the SDK's errors.
import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";

import { client, errorOf, HELLO } from "../client.mjs";

const CALL_BEGIN = process.env.OPENWORKS_TEST_CALL_TOKEN;

const chat = (options = {}) =>
  client.chat.completions.create({ model: "talker", messages: HELLO, max_tokens: 8, ...options });

const WEATHER = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: {
      type: "object",
      properties: { city: { type: "string", enum: ["Paris", "Rome"] } },
      required: ["city"],
      additionalProperties: false,
    },
  },
};
const CALLING = {
  tools: [WEATHER],
  tool_choice: "required",
  parallel_tool_calls: false,
  logit_bias: { [CALL_BEGIN]: 100 },
  max_tokens: 300,
};

const COLOUR = {
  type: "object",
  properties: { colour: { type: "string", enum: ["red", "green"] } },
  required: ["colour"],
  additionalProperties: false,
};
const COLOUR_FORMAT = {
  type: "json_schema",
  json_schema: { name: "colour", strict: true, schema: COLOUR },
};

test("models are listed", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.ok(ids.includes("talker"));
});

test("a model with slashes is retrieved", async () => {
  const id = "@cf/stabilityai/stable-diffusion-xl-base-1.0";
  assert.equal((await client.models.retrieve(id)).id, id);
});

test("a chat is answered", async () => {
  const answer = await chat({ logit_bias: { 65: 100 }, max_tokens: 3 });
  assert.equal(answer.choices[0].message.content, "AAA");
  assert.equal(answer.choices[0].finish_reason, "length");
  assert.equal(answer.usage.completion_tokens, 3);
  assert.match(answer._request_id, /^req_/);
});

test("a stream adds up to the whole answer", async () => {
  const whole = await chat({ seed: 1 });
  let text = "";
  let usage;
  const stream = await chat({ seed: 1, stream: true, stream_options: { include_usage: true } });
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
});

test("a stream can be left", async () => {
  const stream = await chat({ stream: true, max_tokens: 2000 });
  for await (const _ of stream) break;
  assert.ok(stream.controller.signal.aborted);
  assert.ok((await chat()).choices.length);
});

test("the stream helper ends with the final message", async () => {
  const runner = client.chat.completions.stream({
    model: "talker",
    messages: HELLO,
    logit_bias: { 65: 100 },
    max_tokens: 3,
  });
  const contents = [];
  runner.on("content", (delta) => contents.push(delta));
  assert.equal((await runner.finalChatCompletion()).choices[0].message.content, "AAA");
  assert.equal(contents.join(""), "AAA");
});

test("a tool is called", async () => {
  const { choices } = await chat(CALLING);
  const [call] = choices[0].message.tool_calls;
  assert.equal(choices[0].finish_reason, "tool_calls");
  assert.equal(call.function.name, "get_weather");
  assert.ok(["Paris", "Rome"].includes(JSON.parse(call.function.arguments).city));
});

test("streamed tool calls equal whole ones", async () => {
  const whole = await chat({ ...CALLING, seed: 2 });
  let name = "";
  let text = "";
  for await (const chunk of await chat({ ...CALLING, seed: 2, stream: true })) {
    for (const call of chunk.choices[0].delta.tool_calls ?? []) {
      name += call.function.name ?? "";
      text += call.function.arguments;
    }
  }
  const { function: made } = whole.choices[0].message.tool_calls[0];
  assert.deepEqual({ name, text }, { name: made.name, text: made.arguments });
});

test("a tool call and its result can be sent back", async () => {
  const { choices } = await chat(CALLING);
  const { message } = choices[0];
  const result = { role: "tool", tool_call_id: message.tool_calls[0].id, content: "Sunny." };
  const answer = await chat({ messages: [...HELLO, message, result], tools: [WEATHER] });
  assert.ok(answer.choices.length);
});

test("parse reads what a schema asked for", async () => {
  const answer = await client.chat.completions.parse({
    model: "talker",
    messages: HELLO,
    response_format: COLOUR_FORMAT,
  });
  assert.ok(["red", "green"].includes(JSON.parse(answer.choices[0].message.content).colour));
});

test("a schema holds on a stream", async () => {
  let text = "";
  for await (const chunk of await chat({
    response_format: COLOUR_FORMAT,
    stream: true,
    max_tokens: 200,
  })) {
    text += chunk.choices[0].delta.content ?? "";
  }
  assert.ok(["red", "green"].includes(JSON.parse(text).colour));
});

test("plain completions are answered", async () => {
  const answer = await client.completions.create({
    model: "talker",
    prompt: ["Hello", "Bye"],
    max_tokens: 2,
    echo: true,
  });
  assert.ok(answer.choices[1].text.startsWith("Bye"));
});

test("stored completions are listed and deleted", async () => {
  const metadata = { test: `js-${Date.now()}` };
  const { id } = await chat({ store: true, metadata });
  const ids = [];
  for await (const each of client.chat.completions.list({ metadata })) ids.push(each.id);
  assert.deepEqual(ids, [id]);
  const messages = await client.chat.completions.messages.list(id);
  assert.equal(messages.data[0].content, "Hello");
  assert.equal((await client.chat.completions.delete(id)).deleted, true);
});

test("embeddings have their full width in every encoding", async () => {
  const embed = async (options) => {
    const answer = await client.embeddings.create({ model: "encoder", input: "Hello", ...options });
    return answer.data[0].embedding;
  };
  const byDefault = await embed();
  const asNumbers = await embed({ encoding_format: "float" });
  assert.equal(byDefault.length, 64);
  byDefault.forEach((number, index) => assert.ok(Math.abs(number - asNumbers[index]) < 1e-5));
  assert.equal((await embed({ dimensions: 10 })).length, 10);
});

test("errors have the classes of the SDK", async () => {
  const missing = await errorOf(chat({ model: "talkr" }));
  assert.ok(missing instanceof OpenAI.NotFoundError);
  assert.equal(missing.code, "model_not_found");
  assert.match(missing.message, /Did you mean 'talker'/);

  const bad = await errorOf(chat({ temperature: 3 }));
  assert.ok(bad instanceof OpenAI.BadRequestError);
  assert.equal(bad.param, "temperature");

  const long = await errorOf(chat({ messages: [{ role: "user", content: "a".repeat(5000) }] }));
  assert.equal(long.code, "context_length_exceeded");

  const unserved = await errorOf(client.evals.list());
  assert.ok(unserved instanceof OpenAI.InternalServerError);
  assert.equal(unserved.status, 501);
  assert.equal(unserved.code, "endpoint_not_implemented");
});
