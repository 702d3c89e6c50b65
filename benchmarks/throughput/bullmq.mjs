// BullMQ's side of a round: no-op jobs through one worker. `node bullmq.mjs FOLDER URL JOBS CONCURRENCY` prints
// jobs per second enqueued (in bulk) and run. FOLDER holds node_modules.
import { createRequire } from "node:module";

const BULK = 1_000;
const KEPT = 1_000; // as AgentQueue: by default BullMQ keeps every completed job
const [folder, url, jobs, concurrency] = process.argv.slice(2).map((given, i) => (i < 2 ? given : Number(given)));
const load = createRequire(`${folder}/`);
const { Queue, Worker } = load("bullmq");
const Redis = load("ioredis");

const connection = new Redis(url, { maxRetriesPerRequest: null });
const queue = new Queue("bench", { connection });
await queue.waitUntilReady();
const sent = await rate(async () => {
  for (let at = 0; at < jobs; at += BULK) {
    const length = Math.min(BULK, jobs - at);
    await queue.addBulk(Array.from({ length }, (_, n) => ({ name: "noop", data: at + n })));
  }
});
let worker;
const ran = await rate(
  () =>
    new Promise((resolve) => {
      let left = jobs;
      worker = new Worker("bench", async (job) => job.data, { connection, concurrency, removeOnComplete: { count: KEPT } });
      worker.on("completed", () => --left || resolve());
    }),
);
console.log(sent, ran);
await worker.close();
await queue.close();
connection.disconnect();

async function rate(work) {
  const started = performance.now();
  await work();
  return (jobs * 1_000) / (performance.now() - started);
}
