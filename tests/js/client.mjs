// What the tests of the npm SDK share. The server's address is in OPENWORKS_TEST_URL.
import assert from "node:assert/strict";

import OpenAI from "openai";

export const client = new OpenAI({
  baseURL: `${process.env.OPENWORKS_TEST_URL}/v1`,
  apiKey: "none",
  maxRetries: 0,
});

export const HELLO = [{ role: "user", content: "Hello" }];

export const WEATHER = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: {
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
    },
  },
};
export const ASK_WEATHER = "What is the weather in Paris?";

// What noise writes for minutes.
export const LONG_SCHEMA = {
  name: "numbers",
  schema: {
    type: "array",
    minItems: 40,
    items: { type: "array", minItems: 40, items: { type: "integer" } },
  },
};

export async function errorOf(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  return assert.fail("it did not fail");
}

// All that a list, a stream or an iterator of the SDK yields, page after page.
export async function all(iterable) {
  const found = [];
  for await (const each of iterable) found.push(each);
  return found;
}

// What `ask` resolves to, once that has a status which is not one of `passing`.
export async function settled(ask, passing) {
  for (;;) {
    const found = await ask();
    if (!passing.includes(found.status)) return found;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
