package dev.trunkline;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import dev.trunkline.v1.Artifact;
import dev.trunkline.v1.Attempt;
import dev.trunkline.v1.Choice;
import dev.trunkline.v1.ChoiceFinished;
import dev.trunkline.v1.CompleteResponse;
import dev.trunkline.v1.Completion;
import dev.trunkline.v1.FinishReason;
import dev.trunkline.v1.Part;
import dev.trunkline.v1.ProviderState;
import dev.trunkline.v1.Reasoning;
import dev.trunkline.v1.ServerToolCall;
import dev.trunkline.v1.ServerToolState;
import dev.trunkline.v1.ToolCall;
import dev.trunkline.v1.Usage;
import java.util.List;
import java.util.function.Consumer;
import org.junit.jupiter.api.Test;

class CompletionFolderTest {
  private static final ProviderState STATE =
      ProviderState.newBuilder().setProvider("p").setData(ByteString.copyFromUtf8("s")).build();

  @Test
  void noEventsAreAnEmptyCompletion() {
    assertEquals(Completion.getDefaultInstance(), fold());
  }

  @Test
  void interleavedKindsOfPartsKeepTheirOrder() {
    var folded =
        fold(
            event(e -> e.getReasoningDeltaBuilder().setText("Hm")),
            text("A", 1),
            event(e -> e.getReasoningDeltaBuilder().setText("m.")),
            event(
                e ->
                    e.getToolCallDeltaBuilder()
                        .setPartIndex(2)
                        .setId("a")
                        .setName("f")
                        .setArgumentsJson("{\"x\":")),
            text("B", 1),
            event(e -> e.getToolCallDeltaBuilder().setPartIndex(2).setArgumentsJson("1}")),
            event(e -> e.getRefusalDeltaBuilder().setPartIndex(3).setText("No")),
            text("C", 10));

    var call = ToolCall.newBuilder().setId("a").setName("f").setArgumentsJson("{\"x\":1}");
    assertEquals(
        Messages.assistant(
            Part.newBuilder().setReasoning(Reasoning.newBuilder().setText("Hmm.")).build(),
            Messages.part("AB"),
            Messages.part(call.build()),
            Part.newBuilder().setRefusal("No").build(),
            Messages.part("C")),
        folded.getChoices(0).getMessage());
  }

  @Test
  void stateAloneJoinsWhatTheDeltasSaid() {
    var state = event(e -> e.getPartCompletedBuilder().getPartBuilder().setProviderState(STATE));

    assertEquals(
        Part.newBuilder().setText("Hé").setProviderState(STATE).build(),
        fold(text("Hé", 0), state).getChoices(0).getMessage().getParts(0));
    assertEquals(
        Part.newBuilder().setText("").setProviderState(STATE).build(),
        fold(state).getChoices(0).getMessage().getParts(0));
  }

  @Test
  void aResetForgetsItsHopAndNoOther() {
    var folded =
        fold(
            text("kept", 0),
            routed(1),
            text("lost", 1),
            event(e -> e.getArtifactBuilder().setId("lost")),
            event(e -> e.getChoiceFinishedBuilder().setFinishReasonValue(2)),
            event(e -> e.getStreamResetBuilder().setHop(1)),
            text("again", 1));

    assertEquals(
        Messages.assistant(Messages.part("kept"), Messages.part("again")),
        folded.getChoices(0).getMessage());
    assertEquals(FinishReason.FINISH_REASON_UNSPECIFIED, folded.getChoices(0).getFinishReason());
    assertEquals(List.<Artifact>of(), folded.getArtifactsList());
  }

  @Test
  void theLastEventFillsInAndWinsButNeedNotRepeatMessages() {
    var folder = new CompletionFolder();
    folder.feed(event(e -> e.getStartedBuilder().setCompletionId("cmpl_1").setRequestId("req_1")));
    folder.feed(text("Hé", 0));
    assertFalse(folder.isCompleted());
    var last = Completion.newBuilder().setId("cmpl_2").setUsage(usage(7));
    last.addChoices(Choice.newBuilder().setNativeFinishReason("end"));

    folder.feed(event(e -> e.getCompletedBuilder().setCompletion(last)));

    assertTrue(folder.isCompleted());
    assertEquals(
        last.clone()
            .setRequestId("req_1")
            .setChoices(
                0,
                Choice.newBuilder()
                    .setNativeFinishReason("end")
                    .setMessage(Messages.assistant("Hé")))
            .build(),
        folder.completion());
  }

  @Test
  void reportsAreGathered() {
    var attempt = Attempt.newBuilder().setId("1").build();
    var call = ServerToolCall.newBuilder().setId("t").setName("search").build();
    var done = ServerToolState.SERVER_TOOL_STATE_SUCCEEDED;

    var folded =
        fold(
            event(e -> e.getAttemptFailedBuilder().setAttempt(attempt)),
            event(e -> e.getStreamResetBuilder().setFailedAttempt(attempt)),
            event(e -> e.getStreamResetBuilder()),
            event(e -> e.setServerToolCall(call)),
            event(e -> e.getServerToolCallBuilder().setId("t").setState(done)),
            event(e -> e.getUsageUpdateBuilder().setUsage(usage(1))),
            event(e -> e.getInterruptedBuilder().setUsage(usage(2)).addAttempts(attempt)));

    assertEquals(
        Completion.newBuilder()
            .addAttempts(attempt)
            .addServerToolCalls(call.toBuilder().setState(done))
            .setUsage(usage(2))
            .build(),
        folded);
  }

  @Test
  void whatANewerContractSaysPassesThrough() {
    var finished = ChoiceFinished.newBuilder().setFinishReasonValue(99);

    var folded =
        fold(CompleteResponse.getDefaultInstance(), event(e -> e.setChoiceFinished(finished)));

    assertEquals(99, folded.getChoices(0).getFinishReasonValue());
  }

  private static Completion fold(CompleteResponse... events) {
    return CompletionFolder.fold(List.of(events));
  }

  private static CompleteResponse event(Consumer<CompleteResponse.Builder> set) {
    var event = CompleteResponse.newBuilder();
    set.accept(event);
    return event.build();
  }

  private static CompleteResponse text(String text, int partIndex) {
    return event(e -> e.getTextDeltaBuilder().setPartIndex(partIndex).setText(text));
  }

  private static CompleteResponse routed(int hop) {
    return event(e -> e.getRouteSelectedBuilder().getRouteBuilder().setHop(hop));
  }

  private static Usage usage(int outputTokens) {
    return Usage.newBuilder().setOutputTokens(outputTokens).build();
  }
}
