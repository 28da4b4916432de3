// A load program around the Node client (faktory-worker): each producer pushes one job after the other; they share the
// library's connection pool, as they do in a web server.
//
// It reads an order (a JSON object, one line), connects, writes {"ready":true}, reads a line, pushes, and writes a
// report; then it takes the next order, until stdin ends.

import { createInterface } from "node:readline";
import faktory from "faktory-worker";

const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");

async function produce(client, order, start) {
  const replies = [];
  const end = start + order.seconds * 1000;
  const text = order.size ? { text: "x".repeat(order.size) } : {};
  let ended = start;
  for (let number = 0; ended < end; number += 1) {
    const before = performance.now();
    await client.push({ jobtype: "Add", queue: order.queue, args: [{ a: number, b: 1, ...text }] });
    ended = performance.now();
    replies.push(Math.round((ended - before) * 1000));
  }
  return { replies, ended };
}

async function push(client, order) {
  const start = performance.now();
  const producers = Array.from({ length: order.producers }, () => produce(client, order, start));
  const done = await Promise.all(producers);
  const replies = done.flatMap((one) => one.replies);
  const ended = Math.max(...done.map((one) => one.ended));
  return { jobs: replies.length, seconds: (ended - start) / 1000, replies };
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
for (let line = await lines.next(); !line.done; line = await lines.next()) {
  const order = JSON.parse(line.value);
  let client;
  try {
    client = await faktory.connect({ url: order.url, poolSize: order.producers });
  } catch (error) {
    say({ ready: false, error: String(error) });
    continue;
  }
  say({ ready: true });
  await lines.next();
  try {
    say(await push(client, order));
  } catch (error) {
    say({ jobs: 0, seconds: 0, replies: [], error: String(error) });
  }
  await client.close();
}
process.exit(0);
