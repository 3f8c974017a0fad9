// The loops of the SDK that call functions in chats, and its parsing by zod.
import assert from "node:assert/strict";
import { test } from "node:test";

import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

import { ASK_WEATHER, client } from "../client.mjs";

const asking = (content) => ({
  model: "@openworks/tiny-chat",
  messages: [{ role: "user", content }],
  temperature: 0,
});

for (const stream of [false, true]) {
  test(`runTools ends with the answer, ${stream ? "streamed" : "whole"}`, async () => {
    const cities = [];
    const weather = zodFunction({
      name: "get_weather",
      parameters: z.object({ city: z.string() }),
      function: ({ city }) => {
        cities.push(city);
        return { temperature: 21 };
      },
    });
    const runner = client.chat.completions.runTools({
      ...asking(ASK_WEATHER),
      tools: [weather],
      stream,
    });
    const heard = [];
    runner.on("functionToolCall", ({ name }) => heard.push(name));
    runner.on("functionToolCallResult", (result) => heard.push(result));
    runner.on("end", () => heard.push("end"));
    assert.match(await runner.finalContent(), /21/);
    assert.deepEqual(cities, ["Paris"]);
    assert.deepEqual(heard, ["get_weather", '{"temperature":21}', "end"]);
    assert.deepEqual(runner.messages.map((each) => each.role), [
      "user",
      "assistant",
      "tool",
      "assistant",
    ]);
  });
}

test("parse fills a schema of zod", async () => {
  const Person = z.object({ name: z.string(), age: z.number().int() });
  const answer = await client.chat.completions.parse({
    ...asking("Write JSON with name Ada and age 36."),
    response_format: zodResponseFormat(Person, "person"),
  });
  assert.deepEqual(answer.choices[0].message.parsed, { name: "Ada", age: 36 });
});
