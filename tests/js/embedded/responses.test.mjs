// Responses: whole, streamed, in the background, with functions, and taken up again.
import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";
import { ResponsesToolRunner, runnerFunction } from "openai/helpers/responses-tool-runner";
import { zodResponsesFunction, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import { all, ASK_WEATHER, client, errorOf, LONG_SCHEMA, settled, WEATHER } from "../client.mjs";

const { responses } = client;
const model = "@openworks/tiny-chat";
const request = (input, options = {}) => ({ model, input, temperature: 0, ...options });
const respond = (input, options) => responses.create(request(input, options));
const retrieve = (id) => settled(() => responses.retrieve(id), ["queued", "in_progress"]);

const FUNCTION = { type: "function", ...WEATHER.function, strict: false };
const ENDLESS = {
  model: "talker",
  text: { format: { type: "json_schema", ...LONG_SCHEMA } },
  background: true,
};
const cities = [];
const weather = zodResponsesFunction({
  name: "get_weather",
  parameters: z.object({ city: z.string() }),
  function: ({ city }) => {
    cities.push(city);
    return "snow";
  },
});

test("a response is kept until it is deleted", async () => {
  const response = await respond("Hello");
  assert.match(response.output_text, /^Hello/);
  assert.deepEqual(await responses.retrieve(response.id), response);
  await responses.delete(response.id);
  assert.ok((await errorOf(responses.retrieve(response.id))) instanceof OpenAI.NotFoundError);
});

test("a response goes on from the one before", async () => {
  const first = await respond("My name is Anna.");
  const second = await respond("What is my name?", { previous_response_id: first.id });
  assert.match(second.output_text, /Anna/);
});

test("a stream adds up to the whole answer", async () => {
  const whole = await respond("Hello");
  const events = await all(await respond("Hello", { stream: true }));
  assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
  const deltas = events.filter((event) => event.type === "response.output_text.delta");
  assert.equal(deltas.map((event) => event.delta).join(""), whole.output_text);
  assert.equal(events.at(-1).type, "response.completed");
});

test("handlers hear a response from its beginning to its end", async () => {
  const stream = responses.stream(request("Hello"));
  const heard = { names: [], types: [], text: "" };
  for (const name of ["connect", "response.created", "response.completed", "error", "end"]) {
    stream.on(name, () => heard.names.push(name));
  }
  stream.on("event", ({ type }) => heard.types.push(type));
  stream.on("response.output_text.delta", ({ delta, snapshot }) => {
    heard.text += delta;
    assert.equal(snapshot, heard.text);
  });
  const final = await stream.finalResponse();
  assert.deepEqual(heard.names, ["connect", "response.created", "response.completed", "end"]);
  assert.equal(final.output_text, heard.text);
  assert.deepEqual([...new Set(heard.types)], [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
  ]);
  assert.equal((await responses.retrieve(final.id)).output_text, final.output_text);
});

test("a stream can be left", async () => {
  const stream = responses.stream(request("Hello"));
  for await (const { type } of stream) if (type === "response.output_text.delta") break;
  assert.ok((await errorOf(stream.finalResponse())) instanceof OpenAI.APIUserAbortError);
  assert.ok(stream.aborted);
});

test("a stream that is cut off ends as incomplete", async () => {
  const stream = responses.stream(request("Hello", { max_output_tokens: 2 }));
  const { response } = await stream.emitted("response.incomplete");
  assert.equal(response.incomplete_details.reason, "max_output_tokens");
  assert.equal((await stream.finalResponse()).status, "incomplete");
});

test("a function is called and its result is used", async () => {
  const stream = responses.stream(request(ASK_WEATHER, { tools: [weather] }));
  let text = "";
  stream.on("response.function_call_arguments.delta", ({ snapshot }) => (text = snapshot));
  const first = await stream.finalResponse();
  const [call] = first.output;
  assert.equal(call.arguments, text);
  assert.deepEqual(call.parsed_arguments, { city: "Paris" });

  const output = { type: "function_call_output", call_id: call.call_id, output: "snow" };
  const second = await respond([output], { previous_response_id: first.id, tools: [FUNCTION] });
  assert.match(second.output_text, /snow/);
  const items = await all(responses.inputItems.list(second.id));
  assert.deepEqual(items.map((item) => [item.type, item.output]), [[output.type, "snow"]]);
});

for (const stream of [false, true]) {
  test(`the tool runner ends with the answer, ${stream ? "streamed" : "whole"}`, async () => {
    cities.length = 0;
    const runner = new ResponsesToolRunner({ functions: [runnerFunction(weather)] });
    const last = await runner.run(client, request(ASK_WEATHER), { stream, maxSteps: 3 });
    assert.match(last.output[0].content[0].text, /snow/);
    assert.deepEqual(cities, ["Paris"]);
  });
}

test("parse fills a schema of zod", async () => {
  const format = zodTextFormat(z.object({ name: z.string(), age: z.number().int() }), "person");
  const asked = request("Write JSON with name Ada and age 36.", { text: { format } });
  assert.deepEqual((await responses.parse(asked)).output_parsed, { name: "Ada", age: 36 });
  const streamed = await responses.stream(asked).finalResponse();
  assert.deepEqual(streamed.output_parsed, { name: "Ada", age: 36 });
});

test("input items are listed page after page", async () => {
  const texts = ["One.", "Two.", "Three."];
  const { id } = await respond(texts.map((content) => ({ role: "user", content })));
  const items = await all(responses.inputItems.list(id, { order: "asc", limit: 2 }));
  assert.deepEqual(items.map((item) => item.content[0].text), texts);
});

test("the tokens of an input are those of its answer", async () => {
  const asked = { model, input: ASK_WEATHER, tools: [FUNCTION] };
  const { usage } = await responses.create(asked);
  assert.equal((await responses.inputTokens.count(asked)).input_tokens, usage.input_tokens);
});

test("a compaction takes the place of what it compacts", async () => {
  const { id } = await respond("My name is Anna.");
  const compacted = await responses.compact({ model, previous_response_id: id });
  assert.deepEqual(compacted.output.map((item) => item.type), ["compaction"]);
  const response = await respond([...compacted.output, { role: "user", content: "Hello" }]);
  assert.equal(response.status, "completed");
});

test("a response in the background is fetched when it is there", async () => {
  const begun = await respond("Hello", { background: true });
  assert.equal(begun.status, "queued");
  const done = await retrieve(begun.id);
  assert.equal(done.status, "completed");
  assert.match(done.output_text, /^Hello/);
});

test("a stream of the background is taken up where it was left", async () => {
  const events = [];
  for await (const event of await respond("Hello", { background: true, stream: true })) {
    events.push(event);
    if (event.type === "response.output_text.delta") break;
  }
  const { id } = events[0].response;
  const { sequence_number: starting_after } = events.at(-1);
  events.push(...(await all(await responses.retrieve(id, { stream: true, starting_after }))));
  assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
  assert.deepEqual(await all(await responses.retrieve(id, { stream: true })), events);

  const helper = responses.stream({ response_id: id, starting_after });
  const numbers = [];
  helper.on("event", ({ sequence_number }) => numbers.push(sequence_number));
  assert.match((await helper.finalResponse()).output_text, /^Hello/);
  assert.deepEqual(numbers, [...events.keys()].slice(starting_after + 1));
});

test("a cancelled response ends with its listeners", async () => {
  const begun = await respond("Hello", { ...ENDLESS, stream: true });
  let id;
  const listen = async () => {
    for await (const { type, response } of begun) {
      if (type !== "response.in_progress") continue;
      ({ id } = response);
      assert.equal((await responses.cancel(id)).status, "cancelled");
    }
  };
  const error = await errorOf(listen());
  assert.ok(error instanceof OpenAI.APIError);
  assert.equal(error.code, "response_cancelled");
  assert.equal((await responses.retrieve(id)).status, "cancelled");
});

test("errors of responses have the classes of the SDK", async () => {
  const missing = await errorOf(respond("Hello", { previous_response_id: "resp_nobody" }));
  assert.ok(missing instanceof OpenAI.NotFoundError);
  for (const call of [responses.retrieve, responses.delete, responses.cancel]) {
    assert.ok((await errorOf(call.call(responses, "resp_x"))) instanceof OpenAI.NotFoundError);
  }
  const hot = await errorOf(respond("Hello", { temperature: 3 }));
  assert.ok(hot instanceof OpenAI.BadRequestError);
  assert.equal(hot.param, "temperature");
  const tool = await errorOf(respond("Hello", { tools: [{ type: "web_search" }] }));
  assert.equal(tool.param, "tools[0].type");
  const streamed = responses.stream(request("Hello", { model: "nobody" }));
  assert.equal((await errorOf(streamed.finalResponse())).code, "model_not_found");
});
