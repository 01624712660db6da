// A core service under remote control: it asks for syncs by Redis lists, as the existing one does: ioredis with its
// keyPrefix, LPUSH of the request, BRPOP of the reply. One JSON command per line on stdin, one answer per line on stdout.
//   node core_service.mjs PREFIX HOST PORT
import { createInterface } from 'node:readline';
import { randomUUID } from 'node:crypto';
import Redis from 'ioredis';

const [keyPrefix, host, port] = process.argv.slice(2);
const open = () => {
  const redis = new Redis({ host, port: Number(port), keyPrefix, maxRetriesPerRequest: null });
  redis.on('error', () => {}); // a restarted Redis is part of the tests
  return redis;
};
const sender = open();
const readers = [];

const message = (type, data, requestId, responseQueue) =>
  JSON.stringify({ type, data, requestId, timestamp: new Date().toISOString(), responseQueue });

// Raw text in, the reply out: each waiting reader on a connection of its own.
const exchange = async (list, text, responseQueue, seconds) => {
  const reader = readers.pop() ?? open();
  try {
    await sender.lpush(list, text);
    for (let waited = 0; waited < seconds; waited += 1) {
      const found = await reader.brpop(responseQueue, 1);
      if (found) return JSON.parse(found[1]);
    }
    return null;
  } finally {
    readers.push(reader);
  }
};

const syncRequest = (request) => {
  const full = { jobId: randomUUID(), priority: 'medium', syncType: 'portfolio', triggeredAt: new Date(), ...request };
  const responseQueue = `sync:responses:${full.jobId}`;
  return [message('sync_request', full, undefined, responseQueue), responseQueue, full.jobId];
};

const commands = {
  async sync({ request, seconds = 30 }) {
    const [text, responseQueue] = syncRequest(request);
    return exchange('sync:requests', text, responseQueue, seconds);
  },
  async status({ userId, walletAddress, seconds = 30 }) {
    const requestId = `status_${userId}_${Date.now()}`;
    const responseQueue = `sync:status:${requestId}`;
    const text = message('sync_status', { userId, walletAddress }, requestId, responseQueue);
    return exchange('sync:status', text, responseQueue, seconds);
  },
  async operations({ userId, walletAddress, filters, seconds = 30 }) {
    const requestId = `operations_${userId}_${Date.now()}`;
    const responseQueue = `sync:operations:${requestId}`;
    const text = message('sync_operations', { userId, walletAddress, filters }, requestId, responseQueue);
    return exchange('sync:operations', text, responseQueue, seconds);
  },
  async cancel({ operationId, userId, seconds = 30 }) {
    const requestId = `cancel_${operationId}_${Date.now()}`;
    const responseQueue = `sync:cancel:${requestId}`;
    const text = message('cancel_operation', { operationId, userId }, requestId, responseQueue);
    return exchange('sync:cancel', text, responseQueue, seconds);
  },
  async raw({ list, text, responseQueue, seconds = 30 }) {
    if (!responseQueue) return sender.lpush(list, text);
    return exchange(list, text, responseQueue, seconds);
  },
  // Many requests, one wallet each, without waiting for replies.
  async pushMany({ wallets, users = 50 }) {
    const pipeline = sender.pipeline();
    const jobs = wallets.map((walletAddress, i) => {
      const [text, , jobId] = syncRequest({ userId: `user-${i % users}`, walletAddress });
      pipeline.lpush('sync:requests', text);
      return jobId;
    });
    await pipeline.exec();
    return jobs;
  },
  // How many replies wait for each job, and how long the first of them lives.
  async replies({ jobs }) {
    const pipeline = sender.pipeline();
    for (const job of jobs) pipeline.llen(`sync:responses:${job}`);
    return (await pipeline.exec()).map(([error, count]) => (error ? String(error) : count));
  },
  async firstReply({ job }) {
    const [found] = await sender.lrange(`sync:responses:${job}`, -1, -1);
    return found ? { ...JSON.parse(found), livesMs: await sender.pttl(`sync:responses:${job}`) } : null;
  },
  async left() {
    const lists = ['requests', 'status', 'operations', 'cancel'];
    const counts = await Promise.all(lists.map((list) => sender.llen(`sync:${list}`)));
    return counts.reduce((sum, count) => sum + count, 0);
  },
  async parked() {
    return (await sender.lrange('sync:dead', 0, -1)).map((entry) => JSON.parse(entry));
  },
  async ping() {
    return sender.ping();
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { call, id_: id, ...rest } = JSON.parse(line);
  const say = (answer) => process.stdout.write(`${JSON.stringify({ id, ...answer })}\n`);
  commands[call](rest).then(
    (value) => say({ value: value ?? null }),
    (error) => say({ error: error.message ?? String(error) }),
  );
}
process.exit(0);
