// Medplum's client books through our server. Arguments: FHIR base URL, `Schedule/id`.
import assert from "node:assert/strict";
import { PATIENT, VISITS, appointment, batch, passed, refused, statuses, versions } from "./clinic.mjs";

// Node 20 has none, and the package looks for one while it is loaded; nothing here opens it.
globalThis.WebSocket ??= class {};
const { MedplumClient } = await import("@medplum/core");

const [base, schedule] = process.argv.slice(2);
const { origin, pathname } = new URL(base);
const answered = [];
const client = new MedplumClient({
  baseUrl: `${origin}/`,
  fhirUrlPath: pathname.slice(1),
  async fetch(url, options) {
    const answer = await fetch(url, options);
    answered.push(answer.status);
    return answer;
  },
});
const type = "Appointment";
const statusOf = () => answered.at(-1);

async function freeSlots() {
  const found = [];
  const wanted = { schedule, status: "free", _sort: "start", _count: 10 };
  for await (const page of client.searchResourcePages("Slot", wanted)) {
    found.push(...page);
  }
  return found;
}

const statement = await client.get(client.fhirUrl("metadata"));
assert.equal(statement.fhirVersion, "4.0.1");
const extension = "http://fhir-sched.org/fhir/StructureDefinition/hold-expires";
assert.equal((await client.readCanonical("StructureDefinition", extension)).url, extension);
passed("capability");

const free = await freeSlots();
assert.equal(new Set(free.map((slot) => slot.id)).size, 25);
const page = await client.search("Slot", { status: "free", _count: 2, _include: "Slot:schedule", _total: "accurate" });
assert.deepEqual([page.total, ...page.entry.map((each) => each.search.mode)], [25, "match", "match", "include"]);
passed("free slots");

const booked = await client.createResource(appointment(free[0]));
const { id } = booked;
assert.equal(booked.meta.versionId, "1");
await refused(409, statusOf, client.createResource(appointment(free[0])));
assert.equal((await client.readReference(booked.slot[0])).status, "busy");
assert.equal((await freeSlots()).length, 24);
const outcome = await client.validateResource(appointment(free[1]));
assert.deepEqual(outcome.issue.map((each) => each.severity), ["information"]);
passed("book");

const wanted = { ...booked, description: "Brings the referral" };
const stale = { headers: { "If-Match": 'W/"1"' } };
const second = await client.updateResource(wanted, structuredClone(stale));
assert.deepEqual([second.meta.versionId, second.description], ["2", "Brings the referral"]);
passed("update");

await refused(412, statusOf, client.updateResource(wanted, structuredClone(stale)));
passed("stale version");

const operations = [
  { op: "test", path: "/status", value: "booked" },
  { op: "replace", path: "/status", value: "arrived" },
];
const third = await client.patchResource(type, id, operations);
assert.deepEqual([third.meta.versionId, third.status], ["3", "arrived"]);
await refused(422, statusOf, client.patchResource(type, id, operations));
passed("patch");

assert.deepEqual(versions(await client.readHistory(type, id)), ["3", "2", "1"]);
assert.equal((await client.readVersion(type, id, "2")).status, "booked");
passed("history");

const identifier = `${VISITS}|medplum`;
const body = appointment(free[1], { identifier: [{ system: VISITS, value: "medplum" }] });
const first = await client.createResourceIfNoneExist(body, `identifier=${identifier}`);
const again = await client.createResourceIfNoneExist(body, `identifier=${identifier}`);
assert.deepEqual([statusOf(), again.id], [200, first.id]);
const renewed = await client.upsertResource({ ...body, description: "Comes again" }, { identifier });
assert.deepEqual([renewed.id, renewed.description], [first.id, "Comes again"]);
passed("conditional create");

assert.deepEqual(statuses(await client.executeBatch(batch([free[2], free[0]]))), ["201", "409", "200"]);
const both = { ...batch([free[3], free[4]]), type: "transaction" };
assert.deepEqual(statuses(await client.executeBatch(both)), ["201", "201", "200"]);
passed("batch");

await client.deleteResource(type, id);
await refused(410, statusOf, client.readResource(type, id));
assert.deepEqual((await freeSlots())[0].id, free[0].id);
assert.equal((await client.searchOne(type, { patient: PATIENT, _sort: "-date" })).start, free[4].start);
passed("delete");
