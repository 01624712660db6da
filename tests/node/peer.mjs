// A BullMQ program under remote control: one JSON command per line on stdin, one JSON answer per line on stdout.
//   node peer.mjs bullmq5|bullmq6 HOST PORT
import Module, { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const [version, host, port] = process.argv.slice(2);
const require = createRequire(import.meta.url);
// bull-board asks for 'bullmq'; here two versions are installed under other names.
const resolve = Module._resolveFilename;
Module._resolveFilename = (request, ...rest) => resolve(request === 'bullmq' ? version : request, ...rest);
const { Queue, Worker, QueueEvents, FlowProducer } = require(version);
const connection = { host, port: Number(port), maxRetriesPerRequest: null };
const open = { queues: new Map(), workers: new Map(), events: new Map() };
let flows, server;

const queue = (name) => {
  if (!open.queues.has(name)) {
    const made = new Queue(name, { connection });
    made.on('error', () => {}); // a restarted Redis is part of the tests
    open.queues.set(name, made);
  }
  return open.queues.get(name);
};
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const commands = {
  async add({ queue: name, jobs }) {
    const made = await queue(name).addBulk(jobs);
    return made.map((job) => job.id);
  },
  async addOne({ queue: name, job }) {
    return (await queue(name).add(job.name, job.data, job.opts)).id;
  },
  async addMany({ queue: name, count, from = 0, opts }) {
    const ids = [];
    for (let at = 0; at < count; at += 1000) {
      const size = Math.min(1000, count - at);
      const jobs = Array.from({ length: size }, (_, i) => ({ name: 'work', data: { n: from + at + i }, opts }));
      ids.push(...(await queue(name).addBulk(jobs)).map((job) => job.id));
    }
    return ids;
  },
  async pause({ queue: name }) {
    await queue(name).pause();
  },
  async resume({ queue: name }) {
    await queue(name).resume();
  },
  async isPaused({ queue: name }) {
    return queue(name).isPaused();
  },
  async counts({ queue: name }) {
    return queue(name).getJobCounts();
  },
  async version({ queue: name }) {
    await queue(name).waitUntilReady();
    return queue(name).getVersion();
  },
  async limit({ queue: name, concurrency, max, duration }) {
    if (concurrency) await queue(name).setGlobalConcurrency(concurrency);
    if (max) await queue(name).setGlobalRateLimit(max, duration);
  },
  async job({ queue: name, id }) {
    const job = await queue(name).getJob(id);
    if (!job) return null;
    const logs = await queue(name).getJobLogs(id);
    const { returnvalue, failedReason, stacktrace, attemptsMade, progress, processedBy, data, opts } = job;
    const state = await job.getState();
    return { state, returnvalue, failedReason, stacktrace, attemptsMade, progress, processedBy, data, opts, logs };
  },
  async retry({ queue: name, id }) {
    await (await queue(name).getJob(id)).retry();
  },
  // behaviour: ok | fail | hang; processed ids are collected
  async work({ queue: name, concurrency = 1, behaviour = 'ok', delay = 0, options = {} }) {
    const done = [];
    const run = async (job) => {
      done.push(job.id);
      if (delay) await sleep(delay);
      if (behaviour === 'fail') throw new Error('node says no');
      if (behaviour === 'hang') await sleep(600_000);
      return { by: version, n: job.data?.n };
    };
    const worker = new Worker(name, run, { connection, concurrency, ...options });
    worker.on('error', () => {});
    open.workers.set(name, { worker, done });
    await worker.waitUntilReady();
  },
  async worked({ queue: name }) {
    return open.workers.get(name).done;
  },
  async rest({ queue: name }) {
    await open.workers.get(name).worker.close();
  },
  async listen({ queue: name }) {
    const events = new QueueEvents(name, { connection, lastEventId: '0' });
    const heard = [];
    const kinds = ['added', 'waiting', 'active', 'progress', 'delayed', 'completed', 'failed', 'stalled', 'drained'];
    kinds.push('paused', 'resumed', 'removed', 'retries-exhausted', 'waiting-children', 'deduplicated');
    for (const kind of kinds) events.on(kind, (told) => heard.push({ kind, ...told }));
    open.events.set(name, { events, heard });
    await events.waitUntilReady();
  },
  async heard({ queue: name }) {
    return open.events.get(name).heard;
  },
  async flow({ tree }) {
    flows ??= new FlowProducer({ connection });
    const node = await flows.add(tree);
    const ids = (at) => ({ id: at.job.id, children: (at.children ?? []).map(ids) });
    return ids(node);
  },
  async childrenValues({ queue: name, id }) {
    return (await queue(name).getJob(id)).getChildrenValues();
  },
  async board({ queues }) {
    const { createBullBoard } = require('@bull-board/api');
    const { BullMQAdapter } = require('@bull-board/api/bullMQAdapter');
    const { ExpressAdapter } = require('@bull-board/express');
    const adapter = new ExpressAdapter();
    createBullBoard({ queues: queues.map((name) => new BullMQAdapter(queue(name))), serverAdapter: adapter });
    const app = require('express')();
    app.use('/', adapter.getRouter());
    server = await new Promise((resolve) => {
      const listening = app.listen(0, '127.0.0.1', () => resolve(listening));
    });
  },
  async look({ path }) {
    const answer = await fetch(`http://127.0.0.1:${server.address().port}${path}`);
    return { status: answer.status, body: await answer.json() };
  },
  async ping() {
    return process.version;
  },
};

const answer = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
for await (const line of createInterface({ input: process.stdin })) {
  const { call, ...rest } = JSON.parse(line);
  commands[call](rest).then(
    (value) => answer({ id: rest.id_, value: value ?? null }),
    (error) => answer({ id: rest.id_, error: `${error.message}` }),
  );
}
process.exit(0); // stdin closed: the test is over
