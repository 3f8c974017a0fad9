// Files and uploads.
import assert from "node:assert/strict";
import { createReadStream } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import OpenAI, { toFile } from "openai";

import { all, client, errorOf } from "../client.mjs";

const bring = (text, name = "note.txt", purpose = "user_data") =>
  client.files.create({ file: new File([text], name), purpose });

test("a file is brought, listed, read and deleted", async () => {
  const expires_after = { anchor: "created_at", seconds: 3600 };
  const data = new File(["héllo wörld"], "größe 🌍.txt", { type: "text/plain" });
  const file = await client.files.create({ file: data, purpose: "user_data", expires_after });
  assert.equal(file.filename, "größe 🌍.txt");
  assert.equal(file.bytes, 13);
  assert.equal(file.expires_at, file.created_at + 3600);
  assert.deepEqual(await client.files.retrieve(file.id), file);
  assert.equal((await client.files.waitForProcessing(file.id)).status, "processed");
  const content = await client.files.content(file.id);
  assert.equal(await content.text(), "héllo wörld");
  const part = await client.files.content(file.id, { headers: { range: "bytes=-5" } });
  assert.equal(part.status, 206);
  assert.equal(await part.text(), "örld");
  assert.equal((await client.files.delete(file.id)).deleted, true);
  assert.ok((await errorOf(client.files.retrieve(file.id))) instanceof OpenAI.NotFoundError);
});

test("files are listed page after page", async () => {
  const made = [];
  for (const text of ["1", "2", "3"]) made.push((await bring(text)).id);
  const listed = await all(client.files.list({ purpose: "user_data", order: "asc", limit: 2 }));
  const ids = listed.map((file) => file.id);
  assert.deepEqual(ids.filter((id) => made.includes(id)).sort(), made.sort());
  const page = await client.files.list({ order: "asc", limit: 1 });
  assert.ok(page.hasNextPage());
  assert.notEqual((await page.getNextPage()).data[0].id, page.data[0].id);
});

test("whatever toFile takes is brought, and a stream from the disk", async (t) => {
  const bytes = await client.files.create({
    file: await toFile(Buffer.from("bytes"), "bytes.txt"),
    purpose: "assistants",
  });
  assert.deepEqual([bytes.filename, bytes.purpose, bytes.bytes], ["bytes.txt", "assistants", 5]);

  const folder = await mkdtemp(join(tmpdir(), "openworks-"));
  t.after(() => rm(folder, { recursive: true }));
  await writeFile(join(folder, "large.txt"), "x".repeat(3_000_000));
  const stream = createReadStream(join(folder, "large.txt"));
  const large = await client.files.create({ file: stream, purpose: "user_data" });
  assert.deepEqual([large.filename, large.bytes], ["large.txt", 3_000_000]);

  const answer = await client.files.content(large.id);
  const copy = await client.files.create({ file: answer, purpose: "user_data" });
  assert.equal(copy.bytes, 3_000_000);
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

test("an upload can be cancelled", async () => {
  const upload = await client.uploads.create({
    bytes: 1,
    filename: "never.bin",
    mime_type: "application/octet-stream",
    purpose: "user_data",
  });
  assert.equal((await client.uploads.cancel(upload.id)).status, "cancelled");
});

test("errors of files have the classes of the SDK", async () => {
  for (const call of [client.files.retrieve, client.files.content, client.files.delete]) {
    const missing = await errorOf(call.call(client.files, "file-nobody"));
    assert.ok(missing instanceof OpenAI.NotFoundError);
    assert.match(missing.message, /file-nobody/);
  }
  const bad = await errorOf(bring("x", "x.txt", "nothing"));
  assert.ok(bad instanceof OpenAI.BadRequestError);
  assert.equal(bad.param, "purpose");
  const line = await errorOf(bring('{"a": 1}\n{oops', "a.jsonl", "batch"));
  assert.equal(line.code, "invalid_jsonl");
});
