// The official JavaScript SDK against a server whose address is in OPENWORKS_TEST_URL.
import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";

const client = new OpenAI({
  baseURL: `${process.env.OPENWORKS_TEST_URL}/v1`,
  apiKey: "none",
  maxRetries: 0,
});
const CALL_BEGIN = process.env.OPENWORKS_TEST_CALL_TOKEN;

const HELLO = [{ role: "user", content: "Hello" }];
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

async function errorOf(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  return assert.fail("it did not fail");
}

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

test("a thread keeps its messages in order, page after page", async () => {
  const { threads } = client.beta;
  const thread = await threads.create({ messages: [{ role: "user", content: "0" }] });
  for (const content of ["1", "2", "3", "4"]) {
    await threads.messages.create(thread.id, { role: "user", content });
  }
  const texts = [];
  for await (const each of threads.messages.list(thread.id, { limit: 2, order: "asc" })) {
    texts.push(each.content[0].text.value);
  }
  assert.deepEqual(texts, ["0", "1", "2", "3", "4"]);
  const assistant = await client.beta.assistants.create({ model: "talker", name: "Guide" });
  assert.equal((await client.beta.assistants.retrieve(assistant.id)).name, "Guide");
  assert.equal((await client.beta.assistants.delete(assistant.id)).deleted, true);
  assert.equal((await threads.delete(thread.id)).deleted, true);
});

test("a file is brought, listed, read and deleted", async () => {
  const expires_after = { anchor: "created_at", seconds: 3600 };
  const data = new File(["héllo wörld"], "größe 🌍.txt", { type: "text/plain" });
  const file = await client.files.create({ file: data, purpose: "user_data", expires_after });
  assert.equal(file.filename, "größe 🌍.txt");
  assert.equal(file.bytes, 13);
  assert.equal(file.expires_at, file.created_at + 3600);
  const ids = [];
  for await (const each of client.files.list({ purpose: "user_data", limit: 1 })) ids.push(each.id);
  assert.ok(ids.includes(file.id));
  assert.equal((await client.files.waitForProcessing(file.id)).status, "processed");
  const content = await client.files.content(file.id);
  assert.equal(await content.text(), "héllo wörld");
  const part = await client.files.content(file.id, { headers: { range: "bytes=-5" } });
  assert.equal(part.status, 206);
  assert.equal(await part.text(), "örld");
  assert.equal((await client.files.delete(file.id)).deleted, true);
  assert.ok((await errorOf(client.files.retrieve(file.id))) instanceof OpenAI.NotFoundError);
});

test("a file that comes in parts is made whole", async () => {
  const upload = await client.uploads.create({
    bytes: 10,
    filename: "parts.bin",
    mime_type: "application/octet-stream",
    purpose: "user_data",
  });
  const parts = await Promise.all(
    ["01234", "56789"].map((data) =>
      client.uploads.parts.create(upload.id, { data: new File([data], "part") }),
    ),
  );
  const part_ids = parts.map((part) => part.id);
  const done = await client.uploads.complete(upload.id, { part_ids });
  assert.equal(done.status, "completed");
  const content = await client.files.content(done.file.id);
  assert.equal(await content.text(), "0123456789");
  const bad = await errorOf(client.uploads.cancel(upload.id));
  assert.equal(bad.code, "upload_not_pending");
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
