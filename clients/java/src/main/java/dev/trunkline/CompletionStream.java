package dev.trunkline;

import dev.trunkline.v1.CompleteResponse;
import dev.trunkline.v1.Completion;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.Spliterator;
import java.util.Spliterators;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * One answer as it is made: an iterator of events, for one reader. Made by {@link
 * TrunklineClient#stream}, and to be closed: a stream that is left early is cancelled then, so that
 * nobody pays for tokens that nobody reads. One that was read to its end is closed already.
 *
 * <p>Reading throws {@link TrunklineException}, after the events that came before it. It throws an
 * {@link AbortedException} of the reason {@link Reasons#STREAM_INTERRUPTED} also where the stream
 * ends in good order but without its last event: an answer is never cut off silently. A thread that
 * is interrupted while it reads cancels the call and gets a {@link CancelledException}, its
 * interrupt flag still set.
 */
public final class CompletionStream
    implements Iterator<CompleteResponse>, Iterable<CompleteResponse>, AutoCloseable {
  private final BlockingCall<CompleteResponse> call;
  private final CompletionFolder folder = new CompletionFolder();

  CompletionStream(BlockingCall<CompleteResponse> call) {
    this.call = call;
  }

  /** This stream itself: what reads it later goes on where it was left. */
  @Override
  public Iterator<CompleteResponse> iterator() {
    return this;
  }

  /** Waits for the next event, or for the end. */
  @Override
  public boolean hasNext() {
    if (call.hasNext()) {
      return true;
    }
    if (!folder.isCompleted()) {
      throw TrunklineException.cutOff();
    }
    return false;
  }

  @Override
  public CompleteResponse next() {
    if (!hasNext()) {
      throw new NoSuchElementException();
    }
    CompleteResponse event = call.next();
    folder.feed(event);
    return event;
  }

  /** The text of the first choice as it comes. */
  public Stream<String> textDeltas() {
    return textDeltas(0);
  }

  /**
   * The text of one choice as it comes; none of the pieces is empty. Closing it closes this stream.
   *
   * <p>It throws an {@link AbortedException} where text that was handed out already is taken back
   * by a StreamReset, which happens only under RECOVERY_RESTART. Who asks for that iterates the
   * events.
   */
  public Stream<String> textDeltas(int choiceIndex) {
    var text = new HandedOutText(choiceIndex);
    var events = Spliterators.spliteratorUnknownSize(this, Spliterator.ORDERED);
    return StreamSupport.stream(events, false)
        .map(event -> text.of(event, folder.hop()))
        .filter(piece -> !piece.isEmpty())
        .onClose(this::close);
  }

  /** Reads what is left of the stream, and returns the whole answer, messages included. */
  public Completion completion() {
    forEachRemaining(event -> {});
    return snapshot();
  }

  /** The answer as far as it was read; also after an error. */
  public Completion snapshot() {
    return folder.completion();
  }

  /** Cancels the call unless it has ended. Any thread may do it, and more than once. */
  @Override
  public void close() {
    call.close();
  }
}
