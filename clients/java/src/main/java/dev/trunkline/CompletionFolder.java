package dev.trunkline;

import com.google.protobuf.Message;
import dev.trunkline.v1.Artifact;
import dev.trunkline.v1.Attempt;
import dev.trunkline.v1.Choice;
import dev.trunkline.v1.ChoiceFinished;
import dev.trunkline.v1.CompleteResponse;
import dev.trunkline.v1.Completion;
import dev.trunkline.v1.Part;
import dev.trunkline.v1.PartCompleted;
import dev.trunkline.v1.ReasoningDelta;
import dev.trunkline.v1.RefusalDelta;
import dev.trunkline.v1.Role;
import dev.trunkline.v1.ServerToolCall;
import dev.trunkline.v1.StreamInterrupted;
import dev.trunkline.v1.StreamStarted;
import dev.trunkline.v1.TextDelta;
import dev.trunkline.v1.TokenLogprob;
import dev.trunkline.v1.ToolCallDelta;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * Folds the events of one stream into the {@link Completion} that a unary call would have returned.
 *
 * <p>The last event of a stream need not repeat what the events before it said, so the messages are
 * put together here: deltas by choice and part, a completed part in place of its deltas, the
 * content of a hop forgotten when it is reset. What the last event does say wins, field by field.
 * Events of a newer contract are let through.
 */
public final class CompletionFolder {
  private final Completion.Builder report = Completion.newBuilder();
  private final Map<Integer, ChoiceFold> choices = new TreeMap<>();
  private final List<Made> artifacts = new ArrayList<>();
  private Completion finalReport;
  private int hop;

  /** The completion that these events tell, complete or not. */
  public static Completion fold(Iterable<CompleteResponse> events) {
    var folder = new CompletionFolder();
    events.forEach(folder::feed);
    return folder.completion();
  }

  /** Has the event come that ends every whole answer? */
  public boolean isCompleted() {
    return finalReport != null;
  }

  /** The model turn, from 0, that content belongs to now. */
  public int hop() {
    return hop;
  }

  /** Takes the next event. */
  public void feed(CompleteResponse event) {
    switch (event.getEventCase()) {
      case TEXT_DELTA -> addText(event.getTextDelta());
      case REASONING_DELTA -> addReasoning(event.getReasoningDelta());
      case REFUSAL_DELTA -> addRefusal(event.getRefusalDelta());
      case TOOL_CALL_DELTA -> addToolCall(event.getToolCallDelta());
      case PART_COMPLETED -> completePart(event.getPartCompleted());
      case CHOICE_FINISHED -> finish(event.getChoiceFinished());
      case ROUTE_SELECTED -> {
        hop = event.getRouteSelected().getRoute().getHop();
        report.setRoute(event.getRouteSelected().getRoute());
      }
      case STREAM_RESET -> {
        forget(event.getStreamReset().getHop());
        addAttempt(event.getStreamReset().getFailedAttempt());
      }
      case ARTIFACT -> artifacts.add(new Made(hop, event.getArtifact()));
      case COMPLETED -> finalReport = event.getCompleted().getCompletion();
      default -> note(event);
    }
  }

  /** The answer as far as it is known: whole once {@link #isCompleted()}. */
  public Completion completion() {
    Completion.Builder folded = report.clone();
    artifacts.forEach(made -> folded.addArtifacts(made.artifact));
    var answers = new TreeMap<Integer, Choice>();
    choices.forEach((index, choice) -> answers.put(index, choice.value(index)));
    if (finalReport != null) {
      for (Choice said : finalReport.getChoicesList()) {
        answers.merge(said.getIndex(), said, CompletionFolder::finalChoice);
      }
      overlay(folded, finalReport);
    }
    return folded.clearChoices().addAllChoices(answers.values()).build();
  }

  private void addText(TextDelta delta) {
    PartFold part = part(delta.getChoiceIndex(), delta.getPartIndex(), Part.ContentCase.TEXT);
    part.said.append(delta.getText());
    if (delta.getLogprobsCount() > 0) {
      part.logprobs.addAll(delta.getLogprobsList());
    }
  }

  private void addReasoning(ReasoningDelta delta) {
    PartFold part = part(delta.getChoiceIndex(), delta.getPartIndex(), Part.ContentCase.REASONING);
    part.said.append(delta.getText());
    part.known.getReasoningBuilder().setSummary(delta.getSummary());
  }

  private void addRefusal(RefusalDelta delta) {
    part(delta.getChoiceIndex(), delta.getPartIndex(), Part.ContentCase.REFUSAL)
        .said
        .append(delta.getText());
  }

  private void addToolCall(ToolCallDelta delta) {
    PartFold part = part(delta.getChoiceIndex(), delta.getPartIndex(), Part.ContentCase.TOOL_CALL);
    part.said.append(delta.getArgumentsJson());
    // Id and name are on the first delta only.
    if (!delta.getId().isEmpty()) {
      part.known.getToolCallBuilder().setId(delta.getId());
    }
    if (!delta.getName().isEmpty()) {
      part.known.getToolCallBuilder().setName(delta.getName());
    }
  }

  private void completePart(PartCompleted completed) {
    Part.ContentCase kind = completed.getPart().getContentCase();
    if (kind == Part.ContentCase.CONTENT_NOT_SET) {
      // Opaque state alone belongs to what the deltas began; if to nothing, to an empty text.
      kind = choice(completed.getChoiceIndex()).kindBegunAt(completed.getPartIndex());
    }
    part(completed.getChoiceIndex(), completed.getPartIndex(), kind)
        .known
        .mergeFrom(completed.getPart());
  }

  private void finish(ChoiceFinished finished) {
    ChoiceFold choice = choice(finished.getChoiceIndex());
    choice.finished = finished;
    choice.finishedInHop = hop;
  }

  /** Takes an event that reports about the answer and holds no part of it. */
  private void note(CompleteResponse event) {
    switch (event.getEventCase()) {
      case STARTED -> start(event.getStarted());
      case ATTEMPT_FAILED -> addAttempt(event.getAttemptFailed().getAttempt());
      case SKILLS_ACTIVATED -> report.addAllSkills(event.getSkillsActivated().getSkillsList());
      case GENUI_META -> report.setGenui(event.getGenuiMeta());
      case SERVER_TOOL_CALL -> addServerToolCall(event.getServerToolCall());
      // Cumulative, so the last one wins.
      case USAGE_UPDATE -> report.setUsage(event.getUsageUpdate().getUsage());
      case INTERRUPTED -> interrupt(event.getInterrupted());
      default -> {}
    }
  }

  private void start(StreamStarted started) {
    report
        .setId(started.getCompletionId())
        .setRequestId(started.getRequestId())
        .setConversationId(started.getConversationId());
    if (started.hasCreateTime()) {
      report.setCreateTime(started.getCreateTime());
    }
  }

  private void interrupt(StreamInterrupted interrupted) {
    if (interrupted.hasRoute()) {
      report.setRoute(interrupted.getRoute());
    }
    if (interrupted.hasUsage()) {
      report.setUsage(interrupted.getUsage());
    }
    interrupted.getAttemptsList().forEach(this::addAttempt);
  }

  private ChoiceFold choice(int index) {
    return choices.computeIfAbsent(index, absent -> new ChoiceFold());
  }

  private PartFold part(int choiceIndex, int partIndex, Part.ContentCase kind) {
    return choice(choiceIndex)
        .parts
        .computeIfAbsent(new Place(partIndex, kind), absent -> new PartFold(hop));
  }

  private void forget(int reset) {
    hop = reset;
    artifacts.removeIf(made -> made.hop == reset);
    choices.values().forEach(choice -> choice.forget(reset));
  }

  private void addAttempt(Attempt attempt) {
    // The same failure may be told twice: when it happened, and by the reset or interruption it led
    // to.
    boolean isEmpty = attempt.equals(Attempt.getDefaultInstance());
    if (!isEmpty && !report.getAttemptsList().contains(attempt)) {
      report.addAttempts(attempt);
    }
  }

  private void addServerToolCall(ServerToolCall call) {
    for (ServerToolCall.Builder known : report.getServerToolCallsBuilderList()) {
      if (known.getId().equals(call.getId())) {
        overlay(known, call);
        return;
      }
    }
    report.addServerToolCalls(call);
  }

  private static Choice finalChoice(Choice folded, Choice said) {
    Choice.Builder over = said.toBuilder();
    if (said.getMessage().getPartsCount() == 0) {
      over.clearMessage();
    }
    Choice.Builder choice = folded.toBuilder();
    overlay(choice, over.build());
    return choice.build();
  }

  /** Replaces every field that the other has set. */
  private static void overlay(Message.Builder under, Message over) {
    over.getAllFields().keySet().forEach(under::clearField);
    under.mergeFrom(over);
  }

  private record Made(int hop, Artifact artifact) {}

  /** Where a part is found. Kinds may share an index; their names then order them. */
  private record Place(int index, Part.ContentCase kind) {
    static final Comparator<Place> ORDER =
        Comparator.comparingInt(Place::index).thenComparing(place -> place.kind.name());
  }

  /** One choice so far. */
  private static final class ChoiceFold {
    private final Map<Place, PartFold> parts = new LinkedHashMap<>();
    private ChoiceFinished finished = ChoiceFinished.getDefaultInstance();
    private int finishedInHop;

    Part.ContentCase kindBegunAt(int partIndex) {
      return parts.keySet().stream()
          .filter(place -> place.index == partIndex)
          .findFirst()
          .map(Place::kind)
          .orElse(Part.ContentCase.TEXT);
    }

    void forget(int hop) {
      parts.values().removeIf(part -> part.hop == hop);
      if (finishedInHop == hop) {
        finished = ChoiceFinished.getDefaultInstance();
      }
    }

    Choice value(int index) {
      // By number, so that a reason of a newer contract passes through.
      var choice =
          Choice.newBuilder()
              .setIndex(index)
              .setFinishReasonValue(finished.getFinishReasonValue())
              .setNativeFinishReason(finished.getNativeFinishReason())
              .setStopSequence(finished.getStopSequence());
      var message = choice.getMessageBuilder().setRole(Role.ROLE_ASSISTANT);
      parts.entrySet().stream()
          .sorted(Map.Entry.comparingByKey(Place.ORDER))
          .forEach(
              entry -> {
                message.addParts(entry.getValue().value(entry.getKey().kind));
                choice.addAllLogprobs(entry.getValue().logprobs);
              });
      return choice.build();
    }
  }

  /** One part so far: what was said, until its final value is known. */
  private static final class PartFold {
    private final int hop;
    private final Part.Builder known = Part.newBuilder();
    private final StringBuilder said = new StringBuilder();
    private final List<TokenLogprob> logprobs = new ArrayList<>();

    PartFold(int hop) {
      this.hop = hop;
    }

    Part value(Part.ContentCase kind) {
      Part.Builder part = known.clone();
      // A final value that leaves the text out means the one that was said.
      switch (kind) {
        case TEXT -> part.setText(orSaid(part.getText()));
        case REFUSAL -> part.setRefusal(orSaid(part.getRefusal()));
        case REASONING -> {
          var reasoning = part.getReasoningBuilder();
          reasoning.setText(orSaid(reasoning.getText()));
        }
        case TOOL_CALL -> {
          var call = part.getToolCallBuilder();
          call.setArgumentsJson(orSaid(call.getArgumentsJson()));
        }
        default -> {}
      }
      return part.build();
    }

    private String orSaid(String text) {
      return text.isEmpty() ? said.toString() : text;
    }
  }
}
