"""The operations of IHE ITI Scheduling 1.0: ITI-115 ($find), ITI-116 ($hold) and ITI-117 ($book) on Appointment."""

from __future__ import annotations

from fhir_sched.operation import Operation, Parameter

CANONICAL = "https://profiles.ihe.net/ITI/Scheduling/"
SERVER = f"{CANONICAL}CapabilityStatement/IHE.Scheduling.server"
"""The actor that this server is."""

_APPOINTMENT = f"{CANONICAL}StructureDefinition/ihe-sched-appt"
_BUNDLE = f"{CANONICAL}StructureDefinition/ihe-sched-avail-bundle"
_R4 = "http://hl7.org/fhir/StructureDefinition/"
_WHO = "any of those that are named; other kinds must fit as well"


def _token(name: str, doc: str) -> Parameter:
    return Parameter(
        name, "string", f"{doc}, each as system|code: any of those that are named", max="*", search_type="token"
    )


def _reference(name: str, target: str, doc: str) -> Parameter:
    return Parameter(name, "Reference", doc, max="*", targets=(f"{_R4}{target}",))


def _return(doc: str) -> tuple[Parameter, ...]:
    return (Parameter("return", "Bundle", doc, targets=(_BUNDLE,)),)


FIND = Operation(
    "find",
    "Appointment",
    "Find times for an appointment",
    "Proposes appointments in free slots, the earliest first. A proposal is not stored: its id says what is proposed, and "
    "$hold and $book take it. _count limits a page, the next link leads on.",
    inputs=(
        Parameter("start", "dateTime", "The earliest start", min=1),
        Parameter("end", "dateTime", "The latest end", min=1),
        _token("specialty", "The specialties wanted"),
        _token("visit-type", "The types of visit wanted, a service type or the appointment type of a slot"),
        _reference("practitioner", "Practitioner", f"The practitioners wanted: {_WHO}"),
        _reference("organization", "Organization", f"The organizations wanted: {_WHO}"),
        Parameter(
            "location-string",
            "string",
            "A part of the name or address of a location: looked for in the displayed names of the schedules' actors",
            max="*",
            search_type="string",
        ),
        _reference("location-reference", "Location", f"The locations wanted: {_WHO}"),
        _reference("patient-reference", "Patient", "For whom; several make a group appointment"),
        Parameter("patient-resource", "Patient", "For whom, where there is no reference yet", max="*"),
        _token("reason", "Why; it comes back as the appointment's reasonCode"),
        Parameter("referral-identifier", "Identifier", "The referral; it comes back as the appointment's basedOn"),
        Parameter(
            "timing", "Timing", "Days of the week and times of day that are wanted (repeat.dayOfWeek, timeOfDay)"
        ),
        _reference("insurance-reference", "InsurancePlan", "Comes back as the appointment's supportingInformation"),
    ),
    outputs=_return("The proposals, Appointments of status proposed, with their total; an OperationOutcome for none"),
    methods=("POST", "GET"),
    affects_state=False,
    paged=True,
    needs=(("Appointment", "s"), ("Slot", "s")),
    defined=f"{CANONICAL}OperationDefinition/appointment-find",
)

HOLD = Operation(
    "hold",
    "Appointment",
    "Hold a proposed appointment",
    "Keeps a proposal for a while: a pending appointment with the extension hold-expires, whose slots are busy-tentative. "
    "Asked for again, it lasts longer. When its time is over it blocks nobody. 409 says every reason and the nearest "
    "alternatives.",
    inputs=(
        Parameter(
            "appointment-reference",
            "Reference",
            "A proposal of $find, or a hold that shall last longer",
            1,
            "1",
            (_APPOINTMENT,),
        ),
    ),
    outputs=_return("The appointment, of status pending"),
    needs=(("Appointment", "cu"),),
    defined=f"{CANONICAL}OperationDefinition/appointment-hold",
)

BOOK = Operation(
    "book",
    "Appointment",
    "Book, change or cancel an appointment",
    "Books a proposal or a hold by its reference, or an appointment-resource of status pending; changes one that is sent "
    "with status booked; cancels one that is sent with status cancelled. 409 says every reason and the nearest "
    "alternatives.",
    inputs=(
        Parameter("appointment-reference", "Reference", "A proposal of $find, or a hold", targets=(_APPOINTMENT,)),
        Parameter(
            "appointment-resource", "Appointment", "The appointment to book, change or cancel", targets=(_APPOINTMENT,)
        ),
        Parameter("patient-resource", "Patient", "For whom: found by its id, else by its identifier", max="*"),
        Parameter("comment", "string", "A note for the appointment"),
    ),
    outputs=_return("The appointment, of status booked or cancelled"),
    needs=(("Appointment", "cu"),),
    defined=f"{CANONICAL}OperationDefinition/appointment-book",
)
