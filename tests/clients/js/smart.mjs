// The SMART JavaScript client (fhirclient) books through our server. Arguments: FHIR base URL, `Schedule/id`.
import assert from "node:assert/strict";
import smart from "fhirclient";
import { PATIENT, VISITS, appointment, batch, passed, refused, statuses, versions } from "./clinic.mjs";

const [base, schedule] = process.argv.slice(2);
const request = { headers: { host: "localhost" }, url: "/", socket: {}, session: {} };
const client = smart(request, {}).client({ serverUrl: base, tokenResponse: { patient: PATIENT.split("/")[1] } });
const statusOf = (error) => error.status ?? error.statusCode;

const freeSlots = () =>
  client.request(`Slot?schedule=${schedule}&status=free&_sort=start&_count=10`, { pageLimit: 0, flat: true });

assert.equal(await client.getFhirVersion(), "4.0.1");
assert.equal(await client.getFhirRelease(), 4);
passed("capability");

const free = await freeSlots();
assert.equal(new Set(free.map((slot) => slot.id)).size, 25);
passed("free slots");

const booked = await client.create(appointment(free[0]));
const url = `Appointment/${booked.id}`;
assert.equal(booked.meta.versionId, "1");
assert.equal((await freeSlots()).length, 24);
// The appointments of the patient in context, as an app that was launched for one asks.
const own = await client.patient.request("Appointment", { flat: true });
assert.deepEqual(own.map((each) => each.id), [booked.id]);
const resolved = await client.request(url, { resolveReferences: "slot" });
assert.equal(resolved.slot[0].status, "busy");
passed("book");

const wanted = { ...booked, description: "Brings the referral" };
const second = await client.update(wanted, { headers: { "if-match": 'W/"1"' } });
assert.deepEqual([second.meta.versionId, second.description], ["2", "Brings the referral"]);
passed("update");

await refused(412, statusOf, client.update(wanted, { headers: { "if-match": 'W/"1"' } }));
passed("stale version");

const third = await client.patch(url, [{ op: "replace", path: "/status", value: "arrived" }]);
assert.deepEqual([third.meta.versionId, third.status], ["3", "arrived"]);
passed("patch");

assert.deepEqual(versions(await client.request(`${url}/_history`)), ["3", "2", "1"]);
passed("history");

const identified = appointment(free[1], { identifier: [{ system: VISITS, value: "smart" }] });
const once = { headers: { "if-none-exist": `identifier=${VISITS}|smart` }, includeResponse: true };
const first = await client.create(identified, once);
const again = await client.create(identified, once);
assert.deepEqual([first.response.status, again.response.status], [201, 200]);
assert.equal(again.body.id, first.body.id);
passed("conditional create");

const answer = await client.request({
  url: base,
  method: "POST",
  body: JSON.stringify(batch([free[2], free[0]])),
  headers: { "content-type": "application/fhir+json" },
});
assert.deepEqual(statuses(answer), ["201", "409", "200"]);
passed("batch");

await client.delete(url);
await refused(410, statusOf, client.request(url));
assert.equal((await freeSlots()).length, 23);
passed("delete");
