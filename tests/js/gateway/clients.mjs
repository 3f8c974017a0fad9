// npm's clients through the gateway. OPENWORKS_TEST_GATEWAY is .../gateway/v1/ACCOUNT/GATEWAY,
// OPENWORKS_TEST_SECRET opens it; the stand-in behind it is steered by the model's name.
import assert from "node:assert/strict";
import { test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import { generateText, streamText } from "ai";
import { createAiGateway } from "ai-gateway-provider";
import { createAnthropic } from "ai-gateway-provider/providers/anthropic";
import { createOpenAI } from "ai-gateway-provider/providers/openai";
import { createUnified } from "ai-gateway-provider/providers/unified";
import OpenAI from "openai";

const GATEWAY = process.env.OPENWORKS_TEST_GATEWAY;
const SECRET = process.env.OPENWORKS_TEST_SECRET;
const [accountId, gateway] = GATEWAY.split("/").slice(-2);
const ours = { "cf-aig-authorization": `Bearer ${SECRET}` };
const HELLO = [{ role: "user", content: "Hello" }];
const TOKENS = (count) => Array.from({ length: count }, (_, i) => ` tok${i}`).join("");

const openai = new OpenAI({
  baseURL: `${GATEWAY}/openai`,
  apiKey: "sk-provider",
  defaultHeaders: ours,
  maxRetries: 0,
});
const anthropic = new Anthropic({
  baseURL: `${GATEWAY}/anthropic`,
  apiKey: "sk-provider",
  defaultHeaders: ours,
  maxRetries: 0,
});

test("openai answers whole", async () => {
  const { data, response } = await openai.chat.completions
    .create({ model: "mock", messages: HELLO })
    .withResponse();
  assert.ok(data.choices[0].message.content);
  assert.equal(data.usage.completion_tokens, 64);
  assert.equal(response.headers.get("cf-aig-step"), "0");
});

test("openai streams", async () => {
  const stream = await openai.chat.completions.create({
    model: "mock-t5",
    messages: HELLO,
    stream: true,
  });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  assert.equal(text, TOKENS(5));
});

test("openai throws its own errors", async () => {
  await assert.rejects(
    openai.chat.completions.create({ model: "mock-x429", messages: HELLO }),
    OpenAI.RateLimitError,
  );
  const stream = await openai.chat.completions.create({
    model: "mock-k3-t9",
    messages: HELLO,
    stream: true,
  });
  await assert.rejects(async () => {
    for await (const _ of stream);
  }, OpenAI.APIError);
});

test("anthropic answers whole and streams", async () => {
  const body = { model: "mock-t4-p3", max_tokens: 64, messages: HELLO };
  const message = await anthropic.messages.create(body);
  assert.equal(message.usage.output_tokens, 4);
  const final = await anthropic.messages.stream(body).finalMessage();
  assert.equal(final.content[0].text, TOKENS(4));
});

test("anthropic throws its own errors", async () => {
  await assert.rejects(
    anthropic.messages.create({ model: "mock-x529", max_tokens: 64, messages: HELLO }),
    Anthropic.InternalServerError,
  );
});

// ai-gateway-provider always calls Cloudflare's host: here that name is this server's.
const CLOUDFLARE = "https://gateway.ai.cloudflare.com/v1";
const realFetch = globalThis.fetch;
const asked = [];
globalThis.fetch = (url, init) => {
  if (!String(url).startsWith(CLOUDFLARE)) return realFetch(url, init);
  asked.push(String(url));
  return realFetch(GATEWAY.replace(/\/[^/]+\/[^/]+$/, "") + String(url).slice(CLOUDFLARE.length), init);
};
const aigateway = createAiGateway({ accountId, gateway, apiKey: SECRET });
const vercelOpenAI = createOpenAI({ apiKey: "sk-provider" });
const vercelAnthropic = createAnthropic({ apiKey: "sk-provider" });

test("Vercel's AI SDK answers through ai-gateway-provider", async () => {
  const before = asked.length;
  const { text, usage } = await generateText({
    model: aigateway(vercelOpenAI.chat("mock-t7-p5")),
    prompt: "Hello",
    maxRetries: 0,
  });
  assert.ok(text.startsWith("lorem ipsum"));
  assert.equal(usage.outputTokens, 7);
  assert.equal(asked.length, before + 1);
});

test("Vercel's AI SDK streams through ai-gateway-provider", async () => {
  const result = streamText({
    model: aigateway(vercelOpenAI.chat("mock-t7")),
    prompt: "Hello",
    maxRetries: 0,
  });
  assert.equal(await result.text, TOKENS(7));
});

test("ai-gateway-provider falls back to the next model", async () => {
  const { text, response } = await generateText({
    model: aigateway([vercelOpenAI.chat("mock-x500"), vercelAnthropic("mock-t3-p2")]),
    prompt: "Hello",
    maxRetries: 0,
  });
  assert.equal(text, "lorem ipsum dolor sit amet");
  assert.equal(response.headers["cf-aig-step"], "1");
});

test("ai-gateway-provider reaches any provider by one name", async () => {
  const unified = createUnified({ apiKey: "sk-provider" });
  const { text } = await generateText({
    model: aigateway(unified("groq/mock-t3")),
    prompt: "Hello",
    maxRetries: 0,
  });
  assert.ok(text.startsWith("lorem ipsum"));
});

test("ai-gateway-provider names what is wrong with the gateway", async () => {
  const nowhere = createAiGateway({ accountId, gateway: "nothere", apiKey: SECRET });
  const ask = (model) => generateText({ model, prompt: "Hello", maxRetries: 0 });
  await assert.rejects(ask(nowhere(vercelOpenAI.chat("mock"))), /does not exist/);
  const stranger = createAiGateway({ accountId, gateway, apiKey: "sk-ow-wrong" });
  await assert.rejects(ask(stranger(vercelOpenAI.chat("mock"))), /authentication active/);
});
