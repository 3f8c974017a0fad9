// Runs and their steps: made, polled, streamed, heard by handlers, answered, cancelled.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import OpenAI from "openai";
import { AssistantStream } from "openai/lib/AssistantStream";

import { all, ASK_WEATHER, client, errorOf, LONG_SCHEMA, WEATHER } from "../client.mjs";

const { assistants, threads } = client.beta;
const { runs } = threads;
const model = "@openworks/tiny-chat";
const user = (content) => ({ role: "user", content });
const threadOf = async (...texts) => (await threads.create({ messages: texts.map(user) })).id;

let weatherMan;
let talker;
let endless; // writes until it is cancelled

before(async () => {
  weatherMan = await assistants.create({ model, tools: [WEATHER], temperature: 0 });
  talker = await assistants.create({ model, temperature: 0 });
  const response_format = { type: "json_schema", json_schema: LONG_SCHEMA };
  endless = await assistants.create({ model: "talker", response_format });
});

after(async () => {
  for (const { id } of [weatherMan, talker, endless]) await assistants.delete(id);
});

const callsOf = (run) => run.required_action.submit_tool_outputs.tool_calls;
const outputsOf = (run) =>
  callsOf(run).map((call) => ({ tool_call_id: call.id, output: '{"temperature": 21}' }));
const textOf = (message) => message.content.map((part) => part.text.value).join("");

async function lastSaid({ id, thread_id }) {
  const [message] = await all(threads.messages.list(thread_id, { run_id: id }));
  return textOf(message);
}

test("createAndPoll stops for a call, submitToolOutputsAndPoll at the end", async () => {
  const thread_id = await threadOf(ASK_WEATHER);
  const waiting = await runs.createAndPoll(thread_id, { assistant_id: weatherMan.id });
  assert.equal(waiting.status, "requires_action");
  const [call] = callsOf(waiting);
  assert.equal(call.function.name, "get_weather");
  assert.deepEqual(JSON.parse(call.function.arguments), { city: "Paris" });

  const done = await runs.submitToolOutputsAndPoll(waiting.id, {
    thread_id,
    tool_outputs: outputsOf(waiting),
  });
  assert.equal(done.status, "completed");
  assert.match(await lastSaid(done), /21/);
  assert.deepEqual(await runs.retrieve(done.id, { thread_id }), done);
});

test("steps are listed page after page and retrieved", async () => {
  const thread_id = await threadOf(ASK_WEATHER);
  const waiting = await runs.createAndPoll(thread_id, { assistant_id: weatherMan.id });
  const tool_outputs = outputsOf(waiting);
  const run = await runs.submitToolOutputsAndPoll(waiting.id, { thread_id, tool_outputs });

  const steps = await all(runs.steps.list(run.id, { thread_id, order: "asc", limit: 1 }));
  assert.deepEqual(steps.map((step) => step.type), ["tool_calls", "message_creation"]);
  const [call] = steps[0].step_details.tool_calls;
  assert.equal(call.function.output, tool_outputs[0].output);
  for (const step of steps) {
    assert.deepEqual(await runs.steps.retrieve(step.id, { thread_id, run_id: run.id }), step);
  }
  const tokens = steps.reduce((sum, step) => sum + step.usage.total_tokens, 0);
  assert.equal(tokens, run.usage.total_tokens);
});

test("an earlier message of the thread is recalled", async () => {
  const thread_id = await threadOf("My name is Ada.");
  await runs.createAndPoll(thread_id, { assistant_id: talker.id });
  const run = await runs.createAndPoll(thread_id, {
    assistant_id: talker.id,
    additional_messages: [user("What is my name?")],
  });
  assert.match(await lastSaid(run), /Ada/);

  const listed = await all(runs.list(thread_id, { limit: 1 }));
  assert.equal(listed.length, 2);
  assert.deepEqual(listed[0], run);
  const changed = await runs.update(run.id, { thread_id, metadata: { a: "b" } });
  assert.deepEqual(changed, { ...run, metadata: { a: "b" } });
});

// Write down all that a stream tells its handlers.
function listen(stream) {
  const heard = { names: [], events: [], text: "", arguments: "" };
  const note = (name) => stream.on(name, () => heard.names.push(name));
  ["connect", "messageCreated", "messageDone", "runStepCreated", "runStepDone"].forEach(note);
  ["textCreated", "textDone", "toolCallDone", "run", "error", "abort", "end"].forEach(note);
  stream.on("event", ({ event }) => heard.events.push(event));
  stream.on("textDelta", (delta, snapshot) => {
    heard.text += delta.value ?? "";
    assert.equal(snapshot.value, heard.text);
  });
  stream.on("messageDelta", (_, snapshot) => assert.equal(snapshot.role, "assistant"));
  stream.on("toolCallCreated", (call) => {
    heard.names.push("toolCallCreated");
    heard.arguments += call.function.arguments;
  });
  stream.on("toolCallDelta", (delta, snapshot) => {
    heard.arguments += delta.function.arguments;
    assert.equal(snapshot.function.name, "get_weather");
  });
  stream.on("runStepDelta", (_, snapshot) => assert.equal(snapshot.object, "thread.run.step"));
  return heard;
}

test("handlers hear a run from its beginning to its end", async () => {
  const thread_id = await threadOf(ASK_WEATHER);
  const first = runs.stream(thread_id, { assistant_id: weatherMan.id });
  const asked = listen(first);
  const waiting = await first.finalRun();
  assert.deepEqual(asked.names, [
    "connect",
    "runStepCreated",
    "toolCallCreated",
    "toolCallDone",
    "run",
    "end",
  ]);
  assert.deepEqual(asked.events.slice(0, 3), [
    "thread.run.created",
    "thread.run.queued",
    "thread.run.in_progress",
  ]);
  assert.equal(asked.events.at(-1), "thread.run.requires_action");
  assert.deepEqual(JSON.parse(asked.arguments), { city: "Paris" });

  const second = runs.submitToolOutputsStream(waiting.id, {
    thread_id,
    tool_outputs: outputsOf(waiting),
  });
  const told = listen(second);
  const [message] = await second.finalMessages();
  assert.deepEqual(told.names, [
    "connect",
    "runStepDone",
    "runStepCreated",
    "messageCreated",
    "textCreated",
    "textDone",
    "messageDone",
    "runStepDone",
    "run",
    "end",
  ]);
  assert.equal(told.text, textOf(message));
  assert.match(told.text, /21/);
  assert.equal(told.events.at(-1), "thread.run.completed");
  const steps = await second.finalRunSteps();
  assert.deepEqual(steps.map((step) => step.status), ["completed", "completed"]);
  assert.deepEqual(await second.finalRun(), await runs.retrieve(waiting.id, { thread_id }));
});

test("a thread is made with its run, polled and streamed", async () => {
  const thread = { messages: [user("Repeat after me: green lamp")] };
  const begun = await threads.createAndRun({ assistant_id: talker.id, thread });
  assert.equal(begun.status, "queued");
  const done = await runs.poll(begun.id, { thread_id: begun.thread_id });
  assert.match(await lastSaid(done), /green lamp/);

  const polled = await threads.createAndRunPoll({ assistant_id: talker.id, thread });
  assert.equal(polled.status, "completed");

  const stream = threads.createAndRunStream({ assistant_id: talker.id, thread });
  const { events, text } = listen(stream);
  await stream.done();
  assert.equal(events[0], "thread.created");
  assert.equal(stream.currentRun().status, "completed");
  assert.ok(stream.ended && !stream.errored && !stream.aborted, text);
});

test("plain streams end with the run", async () => {
  const messages = [user(ASK_WEATHER)];
  const made = { assistant_id: weatherMan.id, stream: true };
  const asked = await all(await threads.createAndRun({ ...made, thread: { messages } }));
  const waiting = asked.at(-1);
  assert.equal(waiting.event, "thread.run.requires_action");

  const { id, thread_id } = waiting.data;
  const tool_outputs = outputsOf(waiting.data);
  const told = await all(
    await runs.submitToolOutputs(id, { thread_id, tool_outputs, stream: true }),
  );
  assert.equal(told.at(-1).event, "thread.run.completed");

  const again = await all(await runs.create(thread_id, { ...made, assistant_id: talker.id }));
  assert.equal(again.at(-1).event, "thread.run.completed");
});

test("a stream can be handed on and read elsewhere", async () => {
  const thread_id = await threadOf("Repeat after me: green lamp");
  const here = runs.stream(thread_id, { assistant_id: talker.id });
  const there = AssistantStream.fromReadableStream(here.toReadableStream());
  const heard = listen(there);
  assert.equal((await there.finalRun()).status, "completed");
  assert.match(heard.text, /green lamp/);
});

test("a run goes on when its stream is left", async () => {
  const thread_id = await threadOf("Repeat after me: green lamp red box blue door");
  const stream = runs.stream(thread_id, { assistant_id: talker.id });
  const heard = listen(stream);
  for await (const { event } of stream) if (event === "thread.message.delta") break;
  assert.ok((await errorOf(stream.done())) instanceof OpenAI.APIUserAbortError);
  assert.deepEqual(heard.names.slice(-2), ["abort", "end"]);

  const [run] = await all(runs.list(thread_id));
  assert.equal((await runs.poll(run.id, { thread_id })).status, "completed");
  assert.match(await lastSaid(run), /green lamp red box blue door/);
});

test("a cancelled run ends its stream and its pollers", async () => {
  const thread_id = await threadOf("Hello");
  const stream = runs.stream(thread_id, { assistant_id: endless.id });
  const heard = listen(stream);
  await stream.emitted("textDelta");
  const { id } = stream.currentRun();
  const polled = runs.poll(id, { thread_id });
  assert.equal((await runs.cancel(id, { thread_id })).status, "cancelling");

  assert.equal((await polled).status, "cancelled");
  assert.equal((await stream.finalRun()).status, "cancelled");
  assert.deepEqual(heard.events.slice(-4), [
    "thread.run.cancelling",
    "thread.message.incomplete",
    "thread.run.step.cancelled",
    "thread.run.cancelled",
  ]);
  const [message] = await stream.finalMessages();
  assert.equal(textOf(message), heard.text);
  assert.equal((await errorOf(runs.cancel(id, { thread_id }))).code, "invalid_run_state");
});

test("polling ends when its signal does", async () => {
  const run = await threads.createAndRun({
    assistant_id: endless.id,
    thread: { messages: [user("Hello")] },
  });
  const { id, thread_id } = run;
  const signal = AbortSignal.timeout(50);
  const left = await errorOf(runs.poll(id, { thread_id }, { signal }));
  assert.ok(left instanceof OpenAI.APIUserAbortError);
  assert.equal((await runs.cancel(id, { thread_id })).status, "cancelling");
  const done = await runs.poll(id, { thread_id }, { pollIntervalMs: 10 });
  assert.equal(done.status, "cancelled");
});

test("a run that may not go on is incomplete, one that cannot be asked fails", async () => {
  const cut = await runs.createAndPoll(await threadOf("Hello"), {
    assistant_id: talker.id,
    max_completion_tokens: 1,
  });
  assert.equal(cut.status, "incomplete");
  assert.equal(cut.incomplete_details.reason, "max_completion_tokens");

  const long = { assistant_id: talker.id };
  const failed = await runs.createAndPoll(await threadOf("word ".repeat(20_000)), long);
  assert.equal(failed.status, "failed");
  assert.equal(failed.last_error.code, "invalid_prompt");
});

test("deleting the thread ends a stream with an error", async () => {
  const thread_id = await threadOf("Hello");
  const stream = runs.stream(thread_id, { assistant_id: endless.id });
  const heard = listen(stream);
  await stream.emitted("textDelta");
  await threads.delete(thread_id);
  assert.ok((await errorOf(stream.done())) instanceof OpenAI.APIError);
  assert.deepEqual(heard.names.slice(-2), ["error", "end"]);
});

test("errors of runs name the place", async () => {
  const thread_id = await threadOf(ASK_WEATHER);
  const missing = await errorOf(runs.retrieve("run_nobody", { thread_id }));
  assert.ok(missing instanceof OpenAI.NotFoundError);
  const stream = runs.stream("thread_nobody", { assistant_id: talker.id });
  assert.ok((await errorOf(stream.finalRun())) instanceof OpenAI.NotFoundError);
  const nobody = await errorOf(runs.create(thread_id, { assistant_id: "asst_nobody" }));
  assert.ok(nobody instanceof OpenAI.NotFoundError);

  const hot = await errorOf(runs.create(thread_id, { assistant_id: talker.id, temperature: 3 }));
  assert.ok(hot instanceof OpenAI.BadRequestError);
  assert.equal(hot.param, "temperature");

  const run = await runs.createAndPoll(thread_id, { assistant_id: weatherMan.id });
  const locked = await errorOf(threads.messages.create(thread_id, user("Hello")));
  assert.ok(locked instanceof OpenAI.BadRequestError);
  assert.equal(locked.code, "run_active");
  const tool_outputs = [...outputsOf(run), { tool_call_id: "call_x", output: "" }];
  const wrong = await errorOf(runs.submitToolOutputs(run.id, { thread_id, tool_outputs }));
  assert.equal(wrong.param, "tool_outputs");
  assert.match(wrong.message, /call_x/);
});
