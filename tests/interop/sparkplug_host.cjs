// A Sparkplug host of other people's parts: npm's sparkplug-payload reads and writes, npm's mqtt brings.
// Usage: node sparkplug_host.cjs PORT. Prints what it saw as one JSON document; exit code 0 = all as it should be.
// The packages are looked for in NODE_PATH.
const assert = require("node:assert");
const mqtt = require("mqtt");
const sparkplug = require("sparkplug-payload").get("spBv1.0");

const STATE = "spBv1.0/STATE/npm";
const seen = [];
const client = mqtt.connect({ port: Number(process.argv[2]), host: "127.0.0.1", protocolVersion: 4 });
const deadline = setTimeout(() => finish(new Error("the edge node does not do what it should in time")), 30000);
let seq = 0;

function finish(error) {
  clearTimeout(deadline);
  console.log(JSON.stringify(seen, (_, value) => (value?.low === undefined ? value : Number(value))));
  if (error) console.error(error.message);
  client.end(true, () => process.exit(error ? 1 : 0));
}

function state(online) {
  const body = JSON.stringify({ online, timestamp: Date.now() });
  client.publish(STATE, body, { qos: 1, retain: true });
}

function rebirth() {
  const metrics = [{ name: "Node Control/Rebirth", type: "Boolean", value: true }];
  client.publish("spBv1.0/plant/NCMD/st-01", sparkplug.encodePayload({ timestamp: Date.now(), metrics }));
}

function follow(verb, payload) {
  seq = verb === "NBIRTH" ? 0 : seq;
  if (verb !== "NDEATH") assert.equal(Number(payload.seq), seq++ % 256, `seq of ${verb}`);
  for (const metric of payload.metrics) assert(metric.value !== undefined, `${metric.name} of ${verb}`);
  const births = seen.filter((message) => message.verb === "NBIRTH").length;
  if (verb === "DDATA" && births === 1) rebirth();
  if (verb === "DDATA" && births === 2) state(false);
  if (verb === "NDEATH") finish();
}

client.on("connect", () => client.subscribe("spBv1.0/plant/#", { qos: 1 }, () => state(true)));
client.on("message", (topic, body) => {
  const [, , verb, , device] = topic.split("/");
  if (verb.endsWith("CMD")) return;
  try {
    const payload = sparkplug.decodePayload(body);
    seen.push({ verb, device, ...payload });
    follow(verb, payload);
  } catch (error) {
    finish(error);
  }
});
