package org.fhirsched;

import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.context.support.DefaultProfileValidationSupport;
import ca.uhn.fhir.context.support.IValidationSupport.IssueSeverity;
import ca.uhn.fhir.validation.FhirValidator;
import ca.uhn.fhir.validation.ResultSeverityEnum;
import ca.uhn.fhir.validation.SingleValidationMessage;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.hl7.fhir.common.hapi.validation.support.CommonCodeSystemsTerminologyService;
import org.hl7.fhir.common.hapi.validation.support.InMemoryTerminologyServerValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.PrePopulatedValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.SnapshotGeneratingValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.UnknownCodeSystemWarningValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.ValidationSupportChain;
import org.hl7.fhir.common.hapi.validation.validator.FhirInstanceValidator;

/**
 * HAPI's R4 validator as a filter: each line of the standard input is one document (JSON or XML, as a JSON string), each
 * line of the standard output the list of its errors, in the same order. The argument names a file with one conformance
 * resource a line that documents may refer to. Nothing is fetched from anywhere.
 */
public final class Validate {
  private static final int AHEAD = 64;

  private final FhirContext context = FhirContext.forR4Cached();
  private final ObjectMapper json = new ObjectMapper();
  private final FhirValidator validator;

  private Validate(List<String> definitions) {
    PrePopulatedValidationSupport known = new PrePopulatedValidationSupport(context);
    definitions.forEach(each -> known.addResource(context.newJsonParser().parseResource(each)));
    UnknownCodeSystemWarningValidationSupport unknown = new UnknownCodeSystemWarningValidationSupport(context);
    unknown.setNonExistentCodeSystemSeverity(IssueSeverity.WARNING);
    FhirInstanceValidator rules = new FhirInstanceValidator(new ValidationSupportChain(
        new DefaultProfileValidationSupport(context), known, new CommonCodeSystemsTerminologyService(context),
        new InMemoryTerminologyServerValidationSupport(context), unknown,
        new SnapshotGeneratingValidationSupport(context)));
    rules.setAnyExtensionsAllowed(true);
    rules.setErrorForUnknownProfiles(false);
    validator = context.newValidator().registerValidatorModule(rules);
  }

  /** The errors of one line as a line. */
  private String errors(String line) throws Exception {
    String document = json.readValue(line, String.class);
    List<Map<String, String>> found = new ArrayList<>();
    for (SingleValidationMessage each : validator.validateWithResult(document).getMessages()) {
      if (each.getSeverity().compareTo(ResultSeverityEnum.ERROR) >= 0) {
        found.add(Map.of(
            "severity", each.getSeverity().getCode(),
            "location", String.valueOf(each.getLocationString()),
            "message", String.valueOf(each.getMessage())));
      }
    }
    return json.writeValueAsString(found);
  }

  public static void main(String[] arguments) throws Exception {
    Validate validate = new Validate(Files.readAllLines(Path.of(arguments[0])));
    PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    ExecutorService workers = Executors.newFixedThreadPool(Runtime.getRuntime().availableProcessors());
    Queue<Future<String>> pending = new ArrayDeque<>();
    try {
      for (String line = in.readLine(); line != null; line = in.readLine()) {
        String document = line;
        pending.add(workers.submit(() -> validate.errors(document)));
        if (pending.size() >= AHEAD) {
          out.println(pending.remove().get());
        }
      }
      while (!pending.isEmpty()) {
        out.println(pending.remove().get());
      }
    } finally {
      // or the program would wait for ever after a document that the validator can't take
      workers.shutdownNow();
    }
  }
}
