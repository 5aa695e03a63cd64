// fhir-kit-client books through our server. Arguments: FHIR base URL, `Schedule/id`.
import assert from "node:assert/strict";
import { CapabilityTool, Client } from "fhir-kit-client";
import { PATIENT, VISITS, appointment, batch, passed, refused, statuses, versions } from "./clinic.mjs";

const [base, schedule] = process.argv.slice(2);
const client = new Client({ baseUrl: base });
const resourceType = "Appointment";
const statusOf = (error) => error.response?.status;

async function freeSlots(options) {
  const searchParams = { schedule, status: "free", _sort: "start", _count: 10 };
  const found = [];
  let page = await client.resourceSearch({ resourceType: "Slot", searchParams, options });
  while (page) {
    found.push(...page.entry.map((each) => each.resource));
    page = await client.nextPage({ bundle: page });
  }
  return found;
}

const statement = await client.capabilityStatement();
assert.equal(statement.fhirVersion, "4.0.1");
const offered = new CapabilityTool(statement);
for (const code of ["read", "vread", "create", "update", "patch", "delete", "history-instance", "search-type"]) {
  assert.ok(offered.resourceCan(resourceType, code), code);
}
passed("capability");

const free = await freeSlots();
assert.equal(new Set(free.map((slot) => slot.id)).size, 25);
assert.deepEqual(await freeSlots({ postSearch: true }), free);
passed("free slots");

const booked = await client.create({ resourceType, body: appointment(free[0]) });
const { id } = booked;
assert.equal(booked.meta.versionId, "1");
assert.equal(Client.httpFor(booked).response.headers.get("etag"), 'W/"1"');
assert.equal((await freeSlots()).length, 24);
const [, patient] = PATIENT.split("/");
const own = await client.compartmentSearch({ resourceType, compartment: { resourceType: "Patient", id: patient } });
assert.deepEqual(own.entry.map((each) => each.resource.id), [id]);
const slot = await client.resolve({ reference: booked.slot[0].reference, context: booked });
assert.equal(slot.status, "busy");
passed("book");

const wanted = { ...booked, description: "Brings the referral" };
const stale = { headers: { "If-Match": 'W/"1"' } };
const second = await client.update({ resourceType, id, body: wanted, options: stale });
assert.deepEqual([second.meta.versionId, second.description], ["2", "Brings the referral"]);
passed("update");

await refused(412, statusOf, client.update({ resourceType, id, body: wanted, options: stale }));
passed("stale version");

const jsonPatch = [
  { op: "test", path: "/status", value: "booked" },
  { op: "replace", path: "/status", value: "arrived" },
];
const third = await client.patch({ resourceType, id, jsonPatch });
assert.deepEqual([third.meta.versionId, third.status], ["3", "arrived"]);
await refused(422, statusOf, client.patch({ resourceType, id, jsonPatch }));
passed("patch");

assert.deepEqual(versions(await client.history({ resourceType, id })), ["3", "2", "1"]);
assert.equal((await client.vread({ resourceType, id, version: "2" })).status, "booked");
assert.equal((await client.systemHistory()).type, "history");
passed("history");

const body = appointment(free[1], { identifier: [{ system: VISITS, value: "kit" }] });
const once = { headers: { "If-None-Exist": `identifier=${VISITS}|kit` } };
const first = await client.create({ resourceType, body, options: once });
const again = await client.create({ resourceType, body, options: once });
assert.equal(Client.httpFor(again).response.status, 200);
assert.equal(again.id, first.id);
passed("conditional create");

const answer = await client.batch({ body: batch([free[2], free[0]]) });
assert.deepEqual(statuses(answer), ["201", "409", "200"]);
passed("batch");

await client.delete({ resourceType, id });
await refused(410, statusOf, client.read({ resourceType, id }));
assert.equal((await freeSlots()).length, 23);
passed("delete");
