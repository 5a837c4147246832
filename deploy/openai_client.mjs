// Asks a server through the openai package for Node, and checks what comes: openai_client.mjs BASE_URL, from a folder
// that has the package.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const found = createRequire(process.cwd() + '/').resolve('openai');
const { default: OpenAI } = await import(pathToFileURL(found));

const client = new OpenAI({ baseURL: process.argv[2], apiKey: 'any', maxRetries: 0 });
const [{ id: model }] = (await client.models.list()).data;
assert.equal((await client.models.retrieve(model)).id, model);

const ask = { model, prompt: 'In the beginning', max_tokens: 12, temperature: 0 };
const whole = await client.completions.create({ ...ask, logprobs: 2 });
assert.equal(whole.usage.completion_tokens, 12);
assert.equal(whole.choices[0].logprobs.tokens.length, 12);
let text = '';
for await (const part of await client.completions.create({ ...ask, stream: true })) text += part.choices[0].text;
assert.equal(text, whole.choices[0].text);

const chat = { model, messages: [{ role: 'user', content: 'Define patience.' }], max_tokens: 8, seed: 5 };
const again = await client.chat.completions.create(chat);
let said = '';
let usage;
for await (const part of await client.chat.completions.create({ ...chat, stream: true, stream_options: { include_usage: true } })) {
  said += part.choices[0]?.delta.content ?? '';
  usage = part.usage ?? usage;
}
assert.equal(said, again.choices[0].message.content);
assert.equal(usage.completion_tokens, again.usage.completion_tokens);
assert.equal(again.choices[0].message.refusal, null);

const gathered = await client.chat.completions.stream(chat).finalChatCompletion();
assert.equal(gathered.choices[0].message.content, said);

const format = { type: 'json_schema', json_schema: { name: 'answer', schema: { type: 'object', properties: { yes: { type: 'boolean' } }, required: ['yes'], additionalProperties: false } } };
const parsed = await client.chat.completions.parse({ ...chat, max_tokens: 40, response_format: format });
assert.equal(typeof parsed.choices[0].message.parsed.yes, 'boolean');

const stream = await client.completions.create({ ...ask, max_tokens: 200, stream: true });
for await (const part of stream) {
  assert.ok(part.id);
  stream.controller.abort(); // the server goes on with others
}

for (const [kind, change] of [
  [OpenAI.NotFoundError, { model: 'nobody' }],
  [OpenAI.BadRequestError, { temperature: -1 }],
  [OpenAI.BadRequestError, { max_tokens: 100000 }],
]) {
  await assert.rejects(client.completions.create({ ...ask, ...change }), (e) => e instanceof kind && e.requestID && 'param' in e);
}
console.log('models, completions, streams, chat, schemas, aborts and errors are as they should be');
