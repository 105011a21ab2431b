// What a program with Dapr's JavaScript SDK asks of its sidecar, over HTTP and over gRPC. run.py reads what it says.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { CommunicationProtocolEnum, DaprClient, HttpMethod, StateConcurrencyEnum } from "@dapr/dapr";

const STORES = process.env.STORES.split(" ");
const options = { daprHost: "127.0.0.1", logger: { level: "error" } };
const clients = {
  http: new DaprClient({
    ...options,
    daprPort: process.env.DAPR_HTTP_PORT,
    communicationProtocol: CommunicationProtocolEnum.HTTP,
  }),
  grpc: new DaprClient({
    ...options,
    daprPort: process.env.DAPR_GRPC_PORT,
    communicationProtocol: CommunicationProtocolEnum.GRPC,
  }),
};
console.log = console.error; // standard output is for what run.py reads
const say = (line) => process.stdout.write(`${line}\n`);

async function check(name, body) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error("took longer than 20 s")), 20000)));
  try {
    await Promise.race([body(), late]);
    say(`ok ${name}`);
  } catch (error) {
    console.error(error);
    say(`FAIL ${name}: ${String(error).replace(/\s+/g, " ").slice(0, 600)}`);
  } finally {
    clearTimeout(timer);
  }
}

// Over HTTP the SDK returns what went wrong with a save or delete, over gRPC it throws.
async function refused(promise) {
  try {
    const answer = await promise;
    if (answer?.error) return String(answer.error);
  } catch (error) {
    return String(error?.error ?? error);
  }
  throw new Error("was not refused");
}

const nextEvent = async (app, topic) => (await clients.http.invoker.invoke(app, "next-event", HttpMethod.POST, { topic })).data;

for (const [protocol, client] of Object.entries(clients)) {
  const over = (name, body) => check(`${name}_over_${protocol}`, body);
  const isGrpc = protocol === "grpc";

  await over("health_wait", async () => {
    await client.start();
    assert.equal(await client.health.isHealthy(), true);
  });

  await over("metadata", async () => {
    assert.equal(await client.metadata.set("colour", `blue-${protocol}`), true);
    const found = await client.metadata.get();
    assert.equal(found.id, "client");
    assert.equal(found.extended.colour, `blue-${protocol}`);
    const memory = found.components.find((c) => c.name === "memory");
    assert.equal(memory.type, "state.in-memory");
    assert.ok(memory.capabilities.includes("ETAG"));
  });

  await over("secrets", async () => {
    assert.deepEqual(await client.secret.get("vault", "password"), { password: "s3cret" });
    const bulk = JSON.stringify(await client.secret.getBulk("vault"));
    assert.match(bulk, /"password":.*s3cret/);
    assert.match(bulk, /nested:key/);
    await refused(client.secret.get("vault", "absent"));
  });

  await over("state_save_get_delete", async () => {
    for (const store of STORES) {
      const key = randomUUID();
      assert.equal(await client.state.get(store, key), "");
      await client.state.save(store, [
        { key, value: { a: [1, 2] } },
        { key: `${key}-text`, value: "text", metadata: { ttlInSeconds: "600" } },
      ]);
      assert.deepEqual(await client.state.get(store, key), { a: [1, 2] });
      assert.equal(await client.state.get(store, `${key}-text`), "text");
      await client.state.delete(store, key);
      assert.equal(await client.state.get(store, key), "");
    }
  });

  await over("state_etags", async () => {
    for (const store of STORES) {
      const key = randomUUID();
      const etag = async () => (await client.state.getBulk(store, [key]))[0].etag;
      await client.state.save(store, [{ key, value: "1" }]);
      const first = await etag();
      assert.deepEqual(await client.state.save(store, [{ key, value: "2", etag: first }]), {});
      assert.match(await refused(client.state.save(store, [{ key, value: "3", etag: first }])), /etag/i);
      assert.match(await refused(client.state.delete(store, key, { etag: first })), /etag/i);
      assert.equal(String(await client.state.get(store, key)), "2");
      assert.deepEqual(await client.state.delete(store, key, { etag: await etag() }), {});
      assert.equal(await client.state.get(store, key), "");
    }
  });

  await over("state_first_write", async () => {
    for (const store of STORES) {
      const key = randomUUID();
      const first = () => ({ key, value: "1", options: { concurrency: StateConcurrencyEnum.CONCURRENCY_FIRST_WRITE } });
      assert.deepEqual(await client.state.save(store, [first()]), {});
      await refused(client.state.save(store, [first()]));
    }
  });

  await over("state_bulk", async () => {
    for (const store of STORES) {
      const keys = Array.from({ length: 20 }, () => randomUUID());
      await client.state.save(store, keys.map((key, n) => ({ key, value: { n } })));
      const items = await client.state.getBulk(store, [...keys, "absent"], { parallelism: 4 });
      assert.equal(items.length, 21);
      for (const [n, key] of keys.entries()) {
        const item = items.find((i) => i.key === key);
        assert.deepEqual(item.data, { n });
        assert.ok(item.etag);
      }
      assert.ok(!items.find((i) => i.key === "absent").data);
    }
  });

  await over("state_transaction", async () => {
    for (const store of STORES) {
      const [a, b] = [randomUUID(), randomUUID()];
      await client.state.save(store, [{ key: b, value: "old" }]);
      await client.state.transaction(store, [
        { operation: "upsert", request: { key: a, value: "new" } },
        { operation: "delete", request: { key: b } },
      ]);
      assert.equal(await client.state.get(store, a), "new");
      assert.equal(await client.state.get(store, b), "");
      await refused(
        client.state.transaction(store, [
          { operation: "upsert", request: { key: b, value: "half" } },
          { operation: "upsert", request: { key: a, value: "x", etag: "424242" } },
        ]),
      );
      assert.equal(await client.state.get(store, b), "");
    }
  });

  if (STORES.includes("redis") && isGrpc) // over HTTP the SDK has no configuration
    await over("configuration", async () => {
      assert.deepEqual((await client.configuration.get("conf", ["colour", "absent"])).items.colour.value, "blue");
      const seen = [];
      const stream = await client.configuration.subscribeWithKeys("conf", ["beat"], async (data) => {
        seen.push(Number(data.items.beat.value));
      });
      while (seen.length < 3) await new Promise((resolve) => setTimeout(resolve, 20));
      stream.stop();
      assert.deepEqual(seen, [...new Set(seen)].sort((a, b) => a - b));
      await refused(client.configuration.get("nowhere", ["k"]));
    });

  if (STORES.includes("redis"))
    await over("locks", async () => {
      const resource = randomUUID();
      assert.equal((await client.lock.lock("locks", resource, "me", 60)).success, true);
      assert.equal((await client.lock.lock("locks", resource, "you", 60)).success, false);
      const given = [];
      for (const owner of ["you", "me", "me"]) given.push((await client.lock.unlock("locks", resource, owner)).status);
      assert.deepEqual(given, [2, 0, 1]); // of others, given back, nobody's
      await refused(client.lock.lock("nowhere", resource, "me", 60));
    });

  await over("unknown_names_are_refused", async () => {
    assert.match(await refused(client.state.save("nowhere", [{ key: "k", value: "v" }])), /nowhere/);
    assert.match(await refused(client.pubsub.publish("nowhere", "t", "x")), /nowhere/);
    await refused(client.secret.get("nowhere", "k"));
  });

  await over("invoke_http_app", async () => {
    const answer = await client.invoker.invoke("http-app", "echo", HttpMethod.PUT, { a: 1 }, { headers: { "x-question": "why" } });
    assert.equal(answer.verb, HttpMethod.PUT);
    assert.deepEqual(JSON.parse(answer.body), { a: 1 });
    assert.equal(answer.caller, "client");
    if (!isGrpc) assert.equal(answer.question, "why");
    assert.equal((await client.invoker.invoke("http-app", "echo", HttpMethod.DELETE)).verb, HttpMethod.DELETE);
    await refused(client.invoker.invoke("http-app", "absent", HttpMethod.GET));
  });

  await over("invoke_grpc_app", async () => {
    const answer = await client.invoker.invoke("grpc-app", "echo", HttpMethod.POST, { a: 1 });
    assert.equal(answer.verb, HttpMethod.POST);
    assert.deepEqual(JSON.parse(answer.body), { a: 1 });
    assert.equal(answer.contentType, "application/json");
    await refused(client.invoker.invoke("nobody", "echo", HttpMethod.GET));
  });

  await over("output_binding", async () => {
    const value = { text: randomUUID() };
    await client.binding.send("files", "create", value, { fileName: `js-${protocol}.txt` });
    const found = await client.binding.send("files", "get", "", { fileName: `js-${protocol}.txt` });
    assert.deepEqual(isGrpc ? JSON.parse(Buffer.from(found.data).toString()) : found, value);
    assert.match(await refused(client.binding.send("files", "fly", "")), /fly/);
  });

  for (const app of ["http", "grpc"]) {
    const topic = `js-${app}`;
    await over(`publish_to_${app}_app`, async () => {
      await client.pubsub.publish("events", topic, { n: 1 });
      assert.deepEqual(await nextEvent(`${app}-app`, topic), { n: 1 });
      await client.pubsub.publish("events", topic, "just text");
      assert.equal(await nextEvent(`${app}-app`, topic), "just text");
      const event = { specversion: "1.0", id: randomUUID(), source: "elsewhere", type: "special", data: { n: 2 } };
      await client.pubsub.publish("events", topic, event);
      assert.deepEqual(await nextEvent(`${app}-app`, topic), { n: 2 });
      await client.pubsub.publish("events", `${topic}-route`, { n: 3 });
      assert.deepEqual(await nextEvent(`${app}-app`, `${topic}-route`), { n: 3 });
    });

    await over(`publish_bulk_to_${app}_app`, async () => {
      const answer = await client.pubsub.publishBulk("events", topic, [{ n: 0 }, { n: 1 }, { event: { n: 2 }, contentType: "application/json" }]);
      assert.deepEqual(answer.failedMessages, []);
      const got = [];
      for (let i = 0; i < 3; i++) got.push((await nextEvent(`${app}-app`, topic)).n);
      assert.deepEqual(got.sort(), [0, 1, 2]);
    });

    await over(`bulk_subscription_of_${app}_app`, async () => {
      for (let n = 0; n < 5; n++) await client.pubsub.publish("events", `${topic}-bulk`, { n });
      const got = [];
      for (let i = 0; i < 5; i++) got.push((await nextEvent(`${app}-app`, `${topic}-bulk`)).n);
      assert.deepEqual(got.sort(), [0, 1, 2, 3, 4]);
    });

    await over(`rules_and_dead_letters_of_${app}_app`, async () => {
      for (const type of ["important", "other"]) {
        await client.pubsub.publish("events", `${topic}-routed`, { type }, { metadata: { "cloudevent.type": type } });
        assert.deepEqual(await nextEvent(`${app}-app`, `${topic}-${type}`), { type });
      }
      await client.pubsub.publish("events", `${topic}-retried`, { again: protocol });
      assert.deepEqual(await nextEvent(`${app}-app`, `${topic}-retried`), { again: protocol });
      await client.pubsub.publish("events", `${topic}-dropped`, { dead: protocol });
      assert.deepEqual(await nextEvent(`${app}-app`, `${topic}-dead`), { dead: protocol });
    });
  }
}

for (const app of ["http", "grpc"]) {
  await check(`input_binding_of_${app}_app`, async () => assert.equal(await nextEvent(`${app}-app`, "tick"), "tock"));
}
await check("shutdown", () => clients.http.sidecar.shutdown());
say("end");
process.exit(0);
