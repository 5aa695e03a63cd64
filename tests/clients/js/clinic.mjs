// What both programs book with, and how they say which step went well.
import assert from "node:assert/strict";

export const PATIENT = "Patient/00000000-0000-4000-8000-0000000000aa";
export const VISITS = "http://clinic.example/visits";

export function appointment(slot, elements = {}) {
  return {
    resourceType: "Appointment",
    status: "booked",
    slot: [{ reference: `Slot/${slot.id}` }],
    start: slot.start,
    end: slot.end,
    participant: [{ actor: { reference: PATIENT }, status: "accepted" }],
    ...elements,
  };
}

export function batch(slots) {
  const entry = slots.map((slot) => ({
    resource: appointment(slot),
    request: { method: "POST", url: "Appointment" },
  }));
  entry.push({ request: { method: "GET", url: "Slot?status=free&_summary=count" } });
  return { resourceType: "Bundle", type: "batch", entry };
}

export const statuses = (bundle) => bundle.entry.map((each) => each.response.status.slice(0, 3));

export const versions = (bundle) => bundle.entry.map((each) => each.resource.meta.versionId);

export async function refused(status, statusOf, promise) {
  await assert.rejects(promise, (error) => {
    assert.equal(statusOf(error), status, String(error));
    return true;
  });
}

export function passed(step) {
  console.log(step);
}
