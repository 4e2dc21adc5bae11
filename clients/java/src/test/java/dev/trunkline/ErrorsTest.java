package dev.trunkline;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertSame;

import com.google.protobuf.Any;
import com.google.protobuf.Duration;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RequestInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

class ErrorsTest {
  private static final Metadata.Key<byte[]> DETAILS =
      Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

  @Test
  void anErrorCarriesWhatItsDetailsSay() {
    var violation =
        BadRequest.FieldViolation.newBuilder()
            .setField("spec.messages[0].role")
            .setDescription("unknown")
            .setReason("ENUM");
    var metadata = Map.of("provider", "p", "retryable", "true", "extra", "more");
    var rpc =
        failure(
            Status.Code.INVALID_ARGUMENT,
            info("INVALID_REQUEST", "trunkline").toBuilder().putAllMetadata(metadata).build(),
            RequestInfo.newBuilder().setRequestId("req_12345").build(),
            RetryInfo.newBuilder()
                .setRetryDelay(Duration.newBuilder().setSeconds(1).setNanos(500_000_000))
                .build(),
            BadRequest.newBuilder().addFieldViolations(violation).build());

    var error = assertInstanceOf(InvalidRequestException.class, TrunklineException.from(rpc));

    assertEquals(Reasons.INVALID_REQUEST, error.getReason());
    assertEquals(Status.Code.INVALID_ARGUMENT, error.getCode());
    assertEquals("said so", error.getMessage());
    assertEquals("req_12345", error.getRequestId());
    assertEquals(Optional.of(java.time.Duration.ofMillis(1500)), error.getRetryAfter());
    assertEquals("p", error.getProvider());
    assertEquals(
        List.of(new FieldViolation("spec.messages[0].role", "unknown", "ENUM")),
        error.getFieldViolations());
    assertEquals(true, error.isRetryable());
    assertEquals(metadata, error.getMetadata());
    assertSame(rpc, error.getCause());
    assertEquals(
        "dev.trunkline.InvalidRequestException: INVALID_REQUEST: said so (request req_12345)",
        error.toString());
  }

  @ParameterizedTest
  @CsvSource({
    "RATE_LIMITED,trunkline,RESOURCE_EXHAUSTED,true",
    "TOKEN_RATE_LIMITED,trunkline,RESOURCE_EXHAUSTED,true",
    "RATE_LIMITED,proxy.example,RESOURCE_EXHAUSTED,false",
    "TOO_NEW,trunkline,RESOURCE_EXHAUSTED,false",
    "REQUEST_IN_PROGRESS,trunkline,ABORTED,true",
    "STREAM_INTERRUPTED,trunkline,ABORTED,false",
    "OVERLOADED,trunkline,UNAVAILABLE,true",
    "TOO_NEW,trunkline,UNAVAILABLE,true",
    "ALL_PROVIDERS_FAILED,trunkline,UNAVAILABLE,false",
    "ALL_PROVIDERS_FAILED,proxy.example,UNAVAILABLE,true",
    "INTERNAL_ERROR,trunkline,INTERNAL,false"
  })
  void aReasonSaysWhetherToTryAgain(
      String reason, String domain, Status.Code code, boolean isRetryable) {
    var error = TrunklineException.from(failure(code, info(reason, domain)));

    assertEquals(reason, error.getReason());
    assertEquals(isRetryable, error.isRetryable());
  }

  @ParameterizedTest
  @EnumSource(value = Status.Code.class, mode = EnumSource.Mode.EXCLUDE, names = "OK")
  void aStatusWithoutDetailsIsItsCodesFamily(Status.Code code) {
    var error = TrunklineException.from(code.toStatus().asRuntimeException());

    assertEquals(code, error.getCode());
    assertEquals(code.name(), error.getReason());
    assertEquals("", error.getMessage() + error.getRequestId());
    assertEquals(code == Status.Code.UNAVAILABLE, error.isRetryable());
  }

  @ParameterizedTest
  @CsvSource({"-1,-1", "26,4"})
  void damagedDetailsLeaveCodeAndMessage(byte first, byte second) {
    var trailers = new Metadata();
    trailers.put(DETAILS, new byte[] {first, second, 18, 2, -1, -1});
    trailers.put(Headers.REQUEST_ID, "req_12345");
    var rpc = Status.NOT_FOUND.withDescription("no such model").asRuntimeException(trailers);

    var error = assertInstanceOf(NotFoundException.class, TrunklineException.from(rpc));

    assertEquals("no such model", error.getMessage());
    assertEquals("req_12345", error.getRequestId());
  }

  @Test
  void anErrorSurvivesSerialization() throws IOException, ClassNotFoundException {
    var details = ErrorDetails.of(Status.NOT_FOUND.withDescription("no"), new Metadata());
    var bytes = new ByteArrayOutputStream();
    new ObjectOutputStream(bytes).writeObject(new NotFoundException(details, null));

    var copy = new ObjectInputStream(new ByteArrayInputStream(bytes.toByteArray())).readObject();

    assertEquals(
        "dev.trunkline.NotFoundException: NOT_FOUND: no",
        assertInstanceOf(NotFoundException.class, copy).toString());
  }

  private static ErrorInfo info(String reason, String domain) {
    return ErrorInfo.newBuilder().setReason(reason).setDomain(domain).build();
  }

  private static StatusRuntimeException failure(Status.Code code, Message... details) {
    var status = com.google.rpc.Status.newBuilder().setCode(code.value()).setMessage("said so");
    for (Message detail : details) {
      status.addDetails(Any.pack(detail));
    }
    var trailers = new Metadata();
    trailers.put(DETAILS, status.build().toByteArray());
    return code.toStatus().withDescription("said so").asRuntimeException(trailers);
  }
}
