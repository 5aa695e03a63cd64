// An app (fhirclient) that an EHR launches: code flow with PKCE, then it searches and books with the token it is given.
// Arguments: FHIR base URL, `Schedule/id`, the launch, "patient" or "user", another patient's `Appointment/id`.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import smart from "fhirclient";
import { browse } from "./browser.mjs";
import { PATIENT, appointment, passed, refused } from "./clinic.mjs";

const [base, schedule, launch, who, others] = process.argv.slice(2);
const asked = ["launch", "openid", "fhirUser", ...["Appointment.cruds", "Slot.rs", "Schedule.rs"].map((one) => `${who}/${one}`)];
const EXTENSION = "http://fhir-sched.org/fhir/StructureDefinition/";
const statusOf = (error) => error.status ?? error.statusCode;

// The app's storage, which lasts from the launch to the callback.
const kept = new Map();
const storage = {
  get: async (key) => kept.get(key),
  set: async (key, value) => (kept.set(key, value), value),
  unset: async (key) => kept.delete(key),
};

async function launched() {
  const server = createServer();
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  const app = `http://127.0.0.1:${server.address().port}`;
  const client = new Promise((ready, failed) => {
    server.on("request", (request, response) => {
      const api = smart(request, response, storage);
      if (request.url.startsWith("/launch?")) {
        const wanted = { clientId: "app", scope: asked.join(" "), redirectUri: `${app}/callback`, pkceMode: "required" };
        api.authorize(wanted).catch(failed);
      } else {
        api.ready().then(ready, failed).then(() => response.end("launched"));
      }
    });
  });
  const query = new URLSearchParams({ iss: base, launch });
  const { answer, visited } = await browse(`${app}/launch?${query}`);
  const shown = await answer.text();
  assert.equal(shown, "launched", `${visited.at(-1)}: ${shown}`);
  const found = await client;
  server.closeAllConnections();
  server.close();
  return { client: found, visited };
}

const { client, visited } = await launched();
const authorize = new URL(visited[1]).searchParams;
assert.equal(authorize.get("aud"), base);
assert.equal(authorize.get("code_challenge_method"), "S256");
assert.equal(client.patient.id, PATIENT.split("/")[1]);
assert.equal(client.user.fhirUser, who === "patient" ? PATIENT : "Practitioner/7");
const { access_token: token, patient } = client.state.tokenResponse;
const claims = JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
assert.deepEqual([claims.aud, claims.patient, claims.tenant_id], [base, patient, base.split("/").at(-1)]);
passed("launch");

const free = await client.request(`Slot?schedule=${schedule}&status=free&_sort=start&_count=10`, { pageLimit: 0, flat: true });
assert.equal(new Set(free.map((slot) => slot.id)).size, 24);
passed("free slots");

const booked = await client.create(appointment(free[0]));
const source = booked.extension.find((each) => each.url === `${EXTENSION}appointment-source`);
assert.equal(source.valueCode, who === "patient" ? "portal" : "staff");
await refused(409, statusOf, client.create(appointment(free[0])));
passed("book");

const own = await client.patient.request("Appointment", { flat: true });
assert.deepEqual(own.map((each) => each.id), [booked.id]);
const all = (await client.request("Appointment", { flat: true })).map((each) => `Appointment/${each.id}`);
const strangers = appointment(free[1], { participant: [{ actor: { reference: "Patient/77" }, status: "accepted" }] });
if (who === "patient") {
  assert.deepEqual(all, [`Appointment/${booked.id}`]);
  await refused(404, statusOf, client.request(others));
  await refused(403, statusOf, client.create(strangers));
} else {
  assert.deepEqual(all.toSorted(), [`Appointment/${booked.id}`, others].toSorted());
  assert.equal((await client.request(others)).status, "booked");
  await client.create(strangers);
}
await refused(403, statusOf, client.delete(schedule));
passed("other patients");

const cancelled = await client.patch(`Appointment/${booked.id}`, [{ op: "replace", path: "/status", value: "cancelled" }]);
assert.equal(cancelled.meta.versionId, "2");
assert.equal((await client.request(`Slot/${free[0].id}`)).status, "free");
passed("cancel");

// What a scheduling app does by IHE ITI Scheduling: propose, keep, book.
const operation = (name, ...parameter) =>
  client.request({
    url: `Appointment/$${name}`,
    method: "POST",
    headers: { "content-type": "application/fhir+json" },
    body: JSON.stringify({ resourceType: "Parameters", parameter }),
  });
const named = (id) => ({ name: "appointment-reference", valueReference: { reference: `Appointment/${id}` } });
const found = await operation(
  "find",
  { name: "start", valueDateTime: free[0].start },
  { name: "end", valueDateTime: free.at(-1).end },
  { name: "patient-reference", valueReference: { reference: PATIENT } },
);
const [proposal] = found.entry.map((each) => each.resource).filter((each) => each.resourceType === "Appointment");
assert.deepEqual(proposal.slot, [{ reference: `Slot/${free[0].id}` }]);
const held = (await operation("hold", named(proposal.id))).entry[0].resource;
assert.equal(held.status, "pending");
await refused(409, statusOf, client.create(appointment(free[0])));
const confirmed = (await operation("book", named(held.id))).entry[0].resource;
assert.deepEqual([confirmed.id, confirmed.status], [held.id, "booked"]);
passed("find, hold, book");
