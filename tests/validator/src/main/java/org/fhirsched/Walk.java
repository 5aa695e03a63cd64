package org.fhirsched;

import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.rest.api.EncodingEnum;
import ca.uhn.fhir.rest.api.MethodOutcome;
import ca.uhn.fhir.rest.api.SearchStyleEnum;
import ca.uhn.fhir.rest.api.SearchTotalModeEnum;
import ca.uhn.fhir.rest.client.api.IGenericClient;
import ca.uhn.fhir.rest.server.exceptions.PreconditionFailedException;
import ca.uhn.fhir.rest.server.exceptions.ResourceGoneException;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.Date;
import java.util.List;
import java.util.stream.Stream;
import org.hl7.fhir.instance.model.api.IIdType;
import org.hl7.fhir.r4.model.Appointment;
import org.hl7.fhir.r4.model.Appointment.AppointmentStatus;
import org.hl7.fhir.r4.model.Appointment.ParticipationStatus;
import org.hl7.fhir.r4.model.Bundle;
import org.hl7.fhir.r4.model.Bundle.BundleType;
import org.hl7.fhir.r4.model.Bundle.HTTPVerb;
import org.hl7.fhir.r4.model.CapabilityStatement;
import org.hl7.fhir.r4.model.CodeType;
import org.hl7.fhir.r4.model.DateTimeType;
import org.hl7.fhir.r4.model.IdType;
import org.hl7.fhir.r4.model.Identifier;
import org.hl7.fhir.r4.model.Parameters;
import org.hl7.fhir.r4.model.Patient;
import org.hl7.fhir.r4.model.Reference;
import org.hl7.fhir.r4.model.Resource;
import org.hl7.fhir.r4.model.Schedule;
import org.hl7.fhir.r4.model.Slot;
import org.hl7.fhir.r4.model.Slot.SlotStatus;
import org.hl7.fhir.r4.model.StringType;

/** HAPI's client books through our server; it prints the name of each step that went well. */
public final class Walk {
  private static final String PATIENT = "Patient/00000000-0000-4000-8000-0000000000aa";

  private final IGenericClient client;
  private final String schedule;

  private Walk(String base, String schedule, EncodingEnum encoding) {
    this.schedule = schedule;
    FhirContext context = FhirContext.forR4Cached();
    context.getRestfulClientFactory().setSocketTimeout(30_000);
    client = context.newRestfulGenericClient(base);
    client.setEncoding(encoding);
  }

  /** Arguments: FHIR base URL, `Schedule/id`, `json` or `xml`. */
  public static void main(String[] arguments) {
    new Walk(arguments[0], arguments[1], EncodingEnum.valueOf(arguments[2].toUpperCase())).run();
  }

  private void run() {
    CapabilityStatement statement = client.capabilities().ofType(CapabilityStatement.class).execute();
    same("4.0.1", statement.getFhirVersion().toCode());
    passed("capability");

    List<Slot> free = freeSlots();
    same(25, free.size());
    same(25L, free.stream().map(each -> each.getIdElement().getIdPart()).distinct().count());
    Bundle posted = client.search().forResource(Slot.class).where(Slot.STATUS.exactly().codes("free", "busy"))
        .include(Slot.INCLUDE_SCHEDULE).totalMode(SearchTotalModeEnum.ACCURATE).count(2)
        .usingStyle(SearchStyleEnum.POST).returnBundle(Bundle.class).execute();
    same(25, posted.getTotal());
    same(List.of("Slot", "Slot", "Schedule"), resources(posted).map(Resource::fhirType).toList());
    passed("free slots");

    MethodOutcome made = client.create().resource(appointment(free.get(0))).execute();
    same(true, made.getCreated());
    Appointment booked = client.read().resource(Appointment.class).withId(made.getId().toUnqualifiedVersionless()).execute();
    IIdType id = booked.getIdElement().toUnqualifiedVersionless();
    same("1", booked.getMeta().getVersionId());
    same(24, freeSlots().size());
    passed("book");

    booked.setDescription("Brings the referral");
    Appointment second = (Appointment) client.update().resource(booked).withAdditionalHeader("If-Match", "W/\"1\"")
        .execute().getResource();
    same("2", second.getMeta().getVersionId());
    same("Brings the referral", second.getDescription());
    passed("update");

    booked.setDescription("Too late");
    try {
      client.update().resource(booked).withAdditionalHeader("If-Match", "W/\"1\"").execute();
      throw new AssertionError("a stale version was taken");
    } catch (PreconditionFailedException refused) {
      same(412, refused.getStatusCode());
    }
    passed("stale version");

    client.patch().withBody("[{\"op\":\"replace\",\"path\":\"/status\",\"value\":\"arrived\"}]").withId(id).execute();
    same(AppointmentStatus.ARRIVED, read(id).getStatus());
    client.patch().withFhirPatch(replaced("Appointment.status", "fulfilled")).withId(id).execute();
    same(AppointmentStatus.FULFILLED, read(id).getStatus());
    passed("patch");

    Bundle history = client.history().onInstance(id).returnBundle(Bundle.class).execute();
    same(List.of("4", "3", "2", "1"), resources(history).map(each -> each.getMeta().getVersionId()).toList());
    same("1", client.read().resource(Appointment.class).withIdAndVersion(id.getIdPart(), "1").execute()
        .getMeta().getVersionId());
    passed("history");

    Appointment once = appointment(free.get(1));
    once.addIdentifier(new Identifier().setSystem("http://clinic.example/visits").setValue("hapi"));
    IIdType first = createOnce(once);
    same(first, createOnce(once));
    passed("conditional create");

    Bundle answer = client.transaction().withBundle(transaction(free.get(2), free.get(3))).execute();
    same(List.of("201", "201"), answer.getEntry().stream().map(each -> each.getResponse().getStatus().substring(0, 3)).toList());
    same(21, freeSlots().size());
    Bundle linked = client.transaction().withBundle(linked(free.get(24))).execute();
    IIdType opened = new IdType(linked.getEntry().get(1).getResponse().getLocation());
    same(SlotStatus.BUSY, client.read().resource(Slot.class).withId(opened.toUnqualifiedVersionless()).execute().getStatus());
    passed("batch");

    client.delete().resourceById(id).execute();
    try {
      read(id);
      throw new AssertionError("it is still there");
    } catch (ResourceGoneException gone) {
      same(410, gone.getStatusCode());
    }
    same(22, freeSlots().size());
    passed("delete");

    Bundle proposed = invoked("$find", new Parameters().addParameter("start", new DateTimeType(free.get(0).getStart()))
        .addParameter("end", new DateTimeType(free.get(0).getEnd())));
    same(1, proposed.getTotal());
    Resource proposal = proposed.getEntryFirstRep().getResource();
    Parameters wanted = new Parameters();
    wanted.addParameter("appointment-reference", new Reference(proposal.getIdElement().toUnqualifiedVersionless()));
    Patient patient = new Patient();
    patient.setId(PATIENT);
    wanted.addParameter().setName("patient-resource").setResource(patient);
    Appointment kept = (Appointment) invoked("$book", wanted).getEntryFirstRep().getResource();
    same(AppointmentStatus.BOOKED, kept.getStatus());
    same(21, freeSlots().size());
    passed("find and book");
  }

  private Bundle invoked(String operation, Parameters parameters) {
    return client.operation().onType(Appointment.class).named(operation).withParameters(parameters)
        .returnResourceType(Bundle.class).execute();
  }

  private List<Slot> freeSlots() {
    Bundle page = client.search().forResource(Slot.class).where(Slot.STATUS.exactly().code("free"))
        .and(Slot.SCHEDULE.hasId(schedule)).sort().ascending(Slot.START).count(10).returnBundle(Bundle.class).execute();
    List<Slot> found = new ArrayList<>();
    while (true) {
      resources(page).forEach(each -> found.add((Slot) each));
      if (page.getLink(Bundle.LINK_NEXT) == null) {
        return found;
      }
      page = client.loadPage().next(page).execute();
    }
  }

  private Appointment read(IIdType id) {
    return client.read().resource(Appointment.class).withId(id).execute();
  }

  private IIdType createOnce(Appointment wanted) {
    return client.create().resource(wanted).conditional()
        .where(Appointment.IDENTIFIER.exactly().systemAndIdentifier("http://clinic.example/visits", "hapi"))
        .execute().getId().toUnqualifiedVersionless();
  }

  private static Appointment appointment(Slot slot) {
    Appointment made = new Appointment().setStatus(AppointmentStatus.BOOKED);
    made.setStart(slot.getStart()).setEnd(slot.getEnd());
    made.addSlot(new Reference(slot.getIdElement().toUnqualifiedVersionless()));
    made.addParticipant().setActor(new Reference(PATIENT)).setStatus(ParticipationStatus.ACCEPTED);
    return made;
  }

  private static Bundle transaction(Slot... slots) {
    Bundle made = new Bundle().setType(BundleType.TRANSACTION);
    for (Slot each : slots) {
      created(made, appointment(each), "Appointment");
    }
    return made;
  }

  /** A schedule, a slot of it a year after the given one, and an appointment in that, all new. */
  private static Bundle linked(Slot after) {
    Slot slot = new Slot().setStatus(SlotStatus.FREE).setStart(nextYear(after.getStart())).setEnd(nextYear(after.getEnd()));
    slot.setSchedule(new Reference(IdType.newRandomUuid()));
    slot.setId(IdType.newRandomUuid());
    Schedule schedule = new Schedule().addActor(new Reference("Practitioner/new"));
    Appointment booked = appointment(slot);
    booked.getSlotFirstRep().setReference(slot.getId());
    Bundle made = new Bundle().setType(BundleType.TRANSACTION);
    created(made, schedule, "Schedule").setFullUrl(slot.getSchedule().getReference());
    created(made, slot, "Slot").setFullUrl(slot.getId());
    created(made, booked, "Appointment");
    return made;
  }

  private static Date nextYear(Date time) {
    return Date.from(time.toInstant().plus(365, ChronoUnit.DAYS));
  }

  private static Bundle.BundleEntryComponent created(Bundle bundle, Resource resource, String type) {
    Bundle.BundleEntryComponent entry = bundle.addEntry().setResource(resource);
    entry.getRequest().setMethod(HTTPVerb.POST).setUrl(type);
    return entry;
  }

  private static Parameters replaced(String path, String code) {
    Parameters made = new Parameters();
    Parameters.ParametersParameterComponent operation = made.addParameter().setName("operation");
    operation.addPart().setName("type").setValue(new CodeType("replace"));
    operation.addPart().setName("path").setValue(new StringType(path));
    operation.addPart().setName("value").setValue(new CodeType(code));
    return made;
  }

  private static Stream<Resource> resources(Bundle bundle) {
    return bundle.getEntry().stream().map(Bundle.BundleEntryComponent::getResource);
  }

  private static void same(Object expected, Object found) {
    if (!expected.equals(found)) {
      throw new AssertionError("expected " + expected + ", found " + found);
    }
  }

  private static void passed(String step) {
    System.out.println(step);
  }
}
