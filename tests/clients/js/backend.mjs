// A backend service (openid-client, private_key_jwt): it fills a calendar, books, and is kept out of another tenant.
// Arguments: FHIR base URL, FHIR base URL of the other tenant; its private key as a JWK comes on stdin.
import assert from "node:assert/strict";
import { text } from "node:stream/consumers";
import * as oauth from "openid-client";
import { appointment, passed } from "./clinic.mjs";

const [base, elsewhere] = process.argv.slice(2);
const jwk = JSON.parse(await text(process.stdin));
const key = await crypto.subtle.importKey("jwk", jwk, { name: "ECDSA", namedCurve: "P-384" }, false, ["sign"]);

// SMART's backend services: the server says where tokens come from, and that is the assertion's audience.
const found = await (await fetch(`${base}/.well-known/smart-configuration`)).json();
assert.ok(found.token_endpoint_auth_methods_supported.includes("private_key_jwt"));
assert.ok(found.capabilities.includes("client-confidential-asymmetric"));
const audience = (header, payload) => {
  payload.aud = found.token_endpoint;
};
const login = oauth.PrivateKeyJwt({ key, kid: jwk.kid }, { [oauth.modifyAssertion]: audience });
const server = { issuer: found.issuer, token_endpoint: found.token_endpoint };
const configuration = new oauth.Configuration(server, "backend", {}, login);
oauth.allowInsecureRequests(configuration);

const tokenFor = (scope, resource) => oauth.clientCredentialsGrant(configuration, { scope, resource });

async function asked(token, path, body) {
  const headers = { "content-type": "application/fhir+json", authorization: `Bearer ${token.access_token}` };
  const options = body ? { method: "POST", body: JSON.stringify(body) } : {};
  const answer = await fetch(`${base}${path}`, { headers, ...options });
  return { status: answer.status, body: await answer.json(), challenge: answer.headers.get("www-authenticate") };
}

const scope = ["Appointment", "Slot", "Schedule"].map((type) => `system/${type}.cruds`).join(" ");
const token = await tokenFor(scope, base);
assert.equal(token.token_type.toLowerCase(), "bearer");
assert.ok(token.expires_in <= 300);
passed("token");

const plan = "urn:uuid:0b5a2f0e-7f0e-4a43-9d8e-6f0c3f6f3a01";
const times = { start: "2036-07-01T08:00:00Z", end: "2036-07-01T08:15:00Z" };
const calendar = [
  { fullUrl: plan, resource: { resourceType: "Schedule", actor: [{ reference: "Practitioner/7" }] } },
  { resource: { resourceType: "Slot", schedule: { reference: plan }, status: "free", ...times } },
];
const entry = calendar.map((each) => ({ ...each, request: { method: "POST", url: each.resource.resourceType } }));
const filled = await asked(token, "", { resourceType: "Bundle", type: "transaction", entry });
assert.equal(filled.status, 200, JSON.stringify(filled.body));
passed("calendar");

const slots = await asked(token, "/Slot?status=free&schedule.actor=Practitioner/7");
const booked = await asked(token, "/Appointment", appointment(slots.body.entry[0].resource));
assert.equal(booked.status, 201, JSON.stringify(booked.body));
assert.ok(booked.body.extension.some((each) => each.valueCode === "hl7"));
passed("book");

const reading = await tokenFor("system/Slot.rs", base);
assert.equal((await asked(reading, "/Slot?status=busy")).body.entry.length, 1);
const refusal = await asked(reading, "/Appointment");
assert.deepEqual([refusal.status, refusal.body.issue[0].code], [403, "forbidden"]);
assert.match(refusal.challenge, /error="insufficient_scope"/);
passed("narrow token");

const foreign = await asked(await tokenFor(scope, elsewhere), "/Slot");
assert.equal(foreign.status, 403);
assert.match((await asked({ access_token: token.access_token.slice(0, -8) }, "/Slot")).challenge, /error="invalid_token"/);
passed("other tokens");
