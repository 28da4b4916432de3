// A producer and worker around the Node libraries faktory-worker and faktory-client, told what to do by one JSON
// object on stdin: {client, do, jobs, wid, queue, child_queue, concurrency, expect, exit_code}.
//
// It reports on stdout, one JSON object a line: {"pushed":[jids]}, {"refused":{jid:text}}, {"ran":job},
// {"state":"started"}, {"state":"quiet"}, {"ended":true}. Where Faktory is the libraries learn from FAKTORY_URL.

import { readFileSync, writeSync } from "node:fs";
import PlainClient from "faktory-client";
import faktory from "faktory-worker";

// A pipe or file may take only part of a large line at once.
function report(event) {
  let rest = Buffer.from(JSON.stringify(event) + "\n");
  while (rest.length > 0) {
    rest = rest.subarray(writeSync(1, rest));
  }
}

async function push(scenario) {
  const client = await faktory.connect();
  const pushed = [];
  for (const job of scenario.jobs) {
    pushed.push(await client.push(job));
  }
  await client.close();
  report({ pushed });
}

// Concurrent pushes on the library's connection pool.
async function pushAtOnce(scenario) {
  const client = await faktory.connect();
  const pushed = await Promise.all(scenario.jobs.map((job) => client.push(job)));
  await client.close();
  report({ pushed });
}

async function pushBulk(scenario) {
  const client = await faktory.connect();
  const rejected = await client.pushBulk(scenario.jobs);
  await client.close();
  const refused = Object.fromEntries(Object.entries(rejected).map(([jid, { reason }]) => [jid, reason]));
  report({ pushed: scenario.jobs.map((job) => job.jid).filter((jid) => !(jid in refused)) });
  report({ refused });
}

async function work(scenario) {
  let left = scenario.expect || Infinity;
  const worker = new faktory.Worker({
    wid: scenario.wid,
    queues: [scenario.queue],
    concurrency: scenario.concurrency,
    beatInterval: 1,
  });
  worker.use(async (context, next) => {
    try {
      await next();
    } finally {
      report({ ran: context.job });
      left -= 1;
      if (left === 0) {
        worker.stop().then(() => report({ ended: true }));
      }
    }
  });
  worker.register("Record", async () => {});
  worker.register("Flaky", async () => {
    throw Object.assign(new Error("flaky on purpose"), { code: "EFLAKY" });
  });
  worker.register("Parent", () => async ({ job }) => {
    await worker.client.push({
      jid: `${job.jid}-child`,
      jobtype: "Record",
      queue: scenario.child_queue,
      args: [job.jid],
    });
  });
  const quiet = worker.quiet.bind(worker);
  worker.quiet = () => {
    if (!worker.quieted) {
      report({ state: "quiet" });
    }
    quiet();
  };
  await worker.work();
  report({ state: "started" });
}

// faktory-client sends every push at once and matches the replies by their order.
async function plainPush(scenario) {
  const client = new PlainClient({ reconnect: false });
  await client.connect();
  const pushed = await Promise.all(scenario.jobs.map((job) => client.push(job)));
  client.close();
  report({ pushed });
}

async function plainWork(scenario) {
  const client = new PlainClient({ wid: scenario.wid, reconnect: false });
  await client.connect();
  await client.beat();
  report({ state: "started" });
  for (let left = scenario.expect; left > 0; ) {
    const job = await client.fetch(scenario.queue);
    if (job) {
      report({ ran: job });
      if (job.jobtype === "Flaky") {
        await client.fail(job.jid, Object.assign(new Error("flaky on purpose"), { code: "EFLAKY" }));
      } else {
        if (job.jobtype === "Parent") {
          await client.push({
            jid: `${job.jid}-child`,
            jobtype: "Record",
            queue: scenario.child_queue,
            args: [job.jid],
          });
        }
        await client.ack(job.jid);
      }
      left -= 1;
    }
  }
  client.close();
  report({ ended: true });
}

const programs = {
  "faktory-worker": { push, "push-at-once": pushAtOnce, "push-bulk": pushBulk, work },
  "faktory-client": { push: plainPush, work: plainWork },
};

const scenario = JSON.parse(readFileSync(0, "utf8"));
process.exitCode = scenario.exit_code ?? 0;
try {
  await programs[scenario.client][scenario.do](scenario);
} catch (error) {
  console.error(error);
  process.exit(1);
}
