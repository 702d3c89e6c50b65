// BullMQ as a producer and as a worker: `node bullmq.mjs enqueue|work`. BENCH_MODULES is the folder with node_modules;
// the other variables are those of load.py and sides/side.py.
import { openSync, writeFileSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

const env = process.env;
const BULK = 1_000;
const KEEP_S = 3_600;
const PATIENCE_S = 5;
const URGENT = 1; // the highest priority; 2,097,152 is the lowest
const load = createRequire(`${env.BENCH_MODULES}/`);
const { Queue, Worker } = load("bullmq");
const Redis = load("ioredis");
const connection = new Redis(env.BENCH_URL, { maxRetriesPerRequest: null });
const needs = (env.BENCH_NEEDS ?? "").split(" ");

await (process.argv[2] === "work" ? work() : enqueue(JSON.parse(env.BENCH_LOAD)));

function record(n) {
  const buffer = Buffer.allocUnsafe(16);
  buffer.writeBigInt64LE(BigInt(n), 0);
  buffer.writeBigInt64LE(process.hrtime.bigint(), 8); // CLOCK_MONOTONIC
  return buffer;
}

async function work() {
  const journal = openSync(env.BENCH_JOURNAL, "a");
  const ends = openSync(`${env.BENCH_JOURNAL}.ends`, "a");
  const handler = async ({ data: [n, seconds] }) => {
    writeSync(journal, record(n));
    if (seconds) {
      await sleep(1_000 * seconds);
      writeSync(ends, record(n));
    }
    return n;
  };
  const settings = { connection, concurrency: Number(env.BENCH_CONCURRENCY), removeOnComplete: { age: KEEP_S } };
  const worker = new Worker("bench", handler, settings);
  process.on("SIGTERM", async () => {
    await worker.close();
    connection.disconnect();
  });
}

async function enqueue(load) {
  const queue = new Queue("bench", { connection });
  await queue.waitUntilReady();
  const payload = "x".repeat(load.payload_bytes);
  // Without a priority a job of BullMQ goes before all that have one; only the case of priorities uses them.
  const priority = needs.includes("priority") ? { priority: load.urgent ? URGENT : 10 } : {};
  const opts = { ...priority, ...(load.delay ? { delay: Math.round(1_000 * load.delay) } : {}) };
  const job = (n) => ({ name: "work", data: [n, load.seconds, payload], opts });
  const begin = performance.now();
  const moments = [];
  let [sent, due] = [0, begin];
  const over = () => {
    const elapsed = (performance.now() - begin) / 1_000;
    return elapsed > load.limit || (load.bulk && elapsed > PATIENCE_S && sent * load.limit < load.count * elapsed);
  };
  while (sent < load.count && !over()) {
    if (load.bulk) {
      const length = Math.min(BULK, load.count - sent);
      await queue.addBulk(Array.from({ length }, (_, i) => job(load.first + sent + i)));
      sent += length;
      continue;
    }
    const { name, data, opts } = job(load.first + sent);
    if (load.pace) {
      due += 1_000 * load.pace * (0.5 + Math.random());
      await sleep(Math.max(due - performance.now(), 0));
      moments.push(record(load.first + sent));
    }
    await queue.add(name, data, opts);
    sent += 1;
  }
  if (load.pace) writeFileSync(env.BENCH_SENT, Buffer.concat(moments));
  console.log(JSON.stringify({ sent, seconds: (performance.now() - begin) / 1_000 }));
  await queue.close();
  connection.disconnect();
}
