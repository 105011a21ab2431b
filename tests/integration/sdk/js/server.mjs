// An app made with the JavaScript SDK's DaprServer; speaks what its argument says: http or grpc.
import { CommunicationProtocolEnum, DaprServer, HttpMethod } from "@dapr/dapr";

const isGrpc = process.argv[2] === "grpc";
const protocol = isGrpc ? CommunicationProtocolEnum.GRPC : CommunicationProtocolEnum.HTTP;
const server = new DaprServer({
  serverHost: "127.0.0.1",
  serverPort: process.env.APP_PORT,
  communicationProtocol: protocol,
  clientOptions: { daprHost: "127.0.0.1", daprPort: isGrpc ? process.env.DAPR_GRPC_PORT : process.env.DAPR_HTTP_PORT },
});

const arrived = new Map(); // topic -> events nobody has asked for yet
const asked = new Map(); // topic -> who waits for one

function queueOf(map, topic) {
  if (!map.has(topic)) map.set(topic, []);
  return map.get(topic);
}

function arrive(topic, event) {
  const waiting = queueOf(asked, topic).shift();
  if (waiting) waiting(event);
  else queueOf(arrived, topic).push(event);
}

const text = (body) => (typeof body === "string" && body.startsWith('"') ? JSON.parse(body) : body);

for (const method of [HttpMethod.GET, HttpMethod.POST, HttpMethod.PUT, HttpMethod.DELETE, HttpMethod.PATCH]) {
  await server.invoker.listen(
    "echo",
    async (data) => ({
      verb: method,
      body: data.body,
      contentType: data.metadata?.contentType,
      query: data.query,
      question: data.headers?.["x-question"],
      caller: data.headers?.["dapr-caller-app-id"],
    }),
    { method },
  );
}
if (!isGrpc) await server.invoker.listen("healthz", async () => ({ ok: true }), { method: HttpMethod.GET });
// Waits for an event of the topic that the body names.
await server.invoker.listen(
  "next-event",
  (data) => {
    const { topic } = JSON.parse(text(data.body));
    const events = queueOf(arrived, topic);
    return events.length ? events.shift() : new Promise((resolve) => queueOf(asked, topic).push(resolve));
  },
  { method: HttpMethod.POST },
);

const prefix = isGrpc ? "js-grpc" : "js-http";
await server.pubsub.subscribe("events", prefix, async (data) => arrive(prefix, { data }));
await server.pubsub.subscribe("events", `${prefix}-route`, async (data) => arrive(`${prefix}-route`, { data }), "/a-route");
await server.pubsub.subscribeBulk("events", `${prefix}-bulk`, async (data) => arrive(`${prefix}-bulk`, { data }), {
  maxMessagesCount: 10,
  maxAwaitDurationMs: 20,
});
await server.pubsub.subscribeWithOptions("events", `${prefix}-routed`, {
  route: { default: "/other", rules: [{ match: 'event.type == "important"', path: "/important" }] },
});
server.pubsub.subscribeToRoute("events", `${prefix}-routed`, "/important", async (data) => arrive(`${prefix}-important`, { data }));
server.pubsub.subscribeToRoute("events", `${prefix}-routed`, "/other", async (data) => arrive(`${prefix}-other`, { data }));
let attempts = 0;
await server.pubsub.subscribe("events", `${prefix}-retried`, async (data) => {
  if (++attempts === 1) return "RETRY";
  arrive(`${prefix}-retried`, { data });
});
await server.pubsub.subscribeWithOptions("events", `${prefix}-dropped`, {
  deadLetterTopic: `${prefix}-dead`,
  callback: async () => "DROP",
});
await server.pubsub.subscribe("events", `${prefix}-dead`, async (data) => arrive(`${prefix}-dead`, { data }));

await server.binding.receive("tick", async () => arrive("tick", { data: "tock" }));

await server.start();
