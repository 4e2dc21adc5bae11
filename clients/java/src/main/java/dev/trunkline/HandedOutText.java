package dev.trunkline;

import dev.trunkline.v1.CompleteResponse;
import java.util.HashSet;
import java.util.Set;

/** The text of one choice, which cannot be taken back once a caller has it. */
final class HandedOutText {
  private final int choiceIndex;
  private final Set<Integer> hops = new HashSet<>();

  HandedOutText(int choiceIndex) {
    this.choiceIndex = choiceIndex;
  }

  /**
   * The text that this event adds, or nothing.
   *
   * @param hop the model turn that content belongs to, this event counted in
   * @throws AbortedException the event takes back what was handed out
   */
  String of(CompleteResponse event, int hop) {
    switch (event.getEventCase()) {
      case TEXT_DELTA -> {
        if (event.getTextDelta().getChoiceIndex() == choiceIndex) {
          hops.add(hop);
          return event.getTextDelta().getText();
        }
      }
      case STREAM_RESET -> {
        if (hops.contains(event.getStreamReset().getHop())) {
          throw TrunklineException.takenBack();
        }
      }
      default -> {}
    }
    return "";
  }
}
