// A reader of other people's parts: npm's mqtt brings messages of MQTT 5, npm's cloudevents makes events of them.
// Usage: node cloudevents_reader.cjs PORT TOPIC. Prints a line when it listens, and when its input ends all that came
// as one JSON document. The packages are looked for in NODE_PATH.
const mqtt = require("mqtt");
const { MQTT } = require("cloudevents");

const [port, topic] = process.argv.slice(2);
const seen = [];
const client = mqtt.connect({ port: Number(port), host: "127.0.0.1", protocolVersion: 5 });

function told(name, body, { properties = {} }) {
  const headers = { ...properties.userProperties, datacontenttype: properties.contentType };
  const message = { PUBLISH: { "Content Type": properties.contentType }, headers, body: body.toString() };
  try {
    const event = MQTT.toEvent(message, true);
    event.validate();
    return { topic: name, event: event.toJSON() };
  } catch (error) {
    return { topic: name, error: error.message };
  }
}

client.on("connect", () => client.subscribe(topic, { qos: 1 }, () => console.log("listening")));
client.on("message", (name, body, packet) => seen.push(told(name, body, packet)));
process.stdin.on("end", () => client.end(true, () => console.log(JSON.stringify(seen)))).resume();
