// npm bullmq's Worker as a contender of benchmarks/queue.py: JSON commands on stdin, JSON answers on stdout.
//   node queue_node.mjs FOLDER_WITH_NODE_MODULES PACKAGE HOST PORT
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const [folder, name, host, port] = process.argv.slice(2);
const { Worker } = createRequire(`${folder}/package.json`)(name);
const connection = { host, port: Number(port), maxRetriesPerRequest: null };
const now = () => performance.timeOrigin + performance.now();
const cpu = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};
const answer = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

async function drain({ queue, jobs, concurrency }) {
  let left = jobs;
  let finished;
  const all = new Promise((resolve) => (finished = resolve));
  const worker = new Worker(queue, async () => null, { connection, concurrency, autorun: false });
  worker.on('completed', () => --left === 0 && finished());
  await worker.waitUntilReady();
  const [began, spent] = [now(), cpu()];
  worker.run();
  await all;
  const told = { seconds: (now() - began) / 1000, cpu: cpu() - spent };
  await worker.close();
  return told;
}

async function pickup({ queue, jobs, concurrency }) {
  const latencies = [];
  let finished;
  const all = new Promise((resolve) => (finished = resolve));
  const process_ = async (job) => {
    latencies.push(now() - job.data.sent);
    if (latencies.length === jobs) finished();
    return null;
  };
  const worker = new Worker(queue, process_, { connection, concurrency });
  await worker.waitUntilReady();
  answer({ ready: true });
  await all;
  await worker.close();
  return { latencies };
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  answer(await { drain, pickup }[command.do](command));
}
process.exit(0);
