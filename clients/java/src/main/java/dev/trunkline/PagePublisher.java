package dev.trunkline;

import java.util.Collections;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.Flow;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Function;

/**
 * The items of a listing; each subscriber begins with the first. A page is fetched when an item of
 * it is asked for.
 *
 * @param <P> one page, whose last has no token for the next one
 */
final class PagePublisher<P, T> implements Flow.Publisher<T> {
  private final Function<String, CompletableFuture<P>> fetch;
  private final Function<P, String> nextToken;
  private final Function<P, List<T>> items;

  PagePublisher(
      Function<String, CompletableFuture<P>> fetch,
      Function<P, String> nextToken,
      Function<P, List<T>> items) {
    this.fetch = fetch;
    this.nextToken = nextToken;
    this.items = items;
  }

  @Override
  public void subscribe(Flow.Subscriber<? super T> subscriber) {
    subscriber.onSubscribe(new Listing(subscriber));
  }

  private final class Listing implements Flow.Subscription {
    private final Flow.Subscriber<? super T> subscriber;
    private final AtomicLong wanted = new AtomicLong();
    private final AtomicInteger calls = new AtomicInteger();
    private Iterator<T> known = Collections.emptyIterator();
    private String token = "";
    private boolean isLastKnown;
    private volatile CompletableFuture<P> page;
    private volatile IllegalArgumentException refused;
    private volatile boolean isOver;

    Listing(Flow.Subscriber<? super T> subscriber) {
      this.subscriber = subscriber;
    }

    @Override
    public void request(long more) {
      if (more > 0) {
        wanted.accumulateAndGet(
            more, (had, asked) -> Math.min(had, Long.MAX_VALUE - asked) + asked);
      } else {
        refused = new IllegalArgumentException("a subscriber asks for one item at least");
      }
      goOn();
    }

    @Override
    public void cancel() {
      isOver = true;
      CompletableFuture<P> running = page;
      if (running != null) {
        running.cancel(false);
      }
    }

    /** Demand and pages come in any thread; the one that is here first goes on for all of them. */
    private void goOn() {
      if (calls.getAndIncrement() == 0) {
        do {
          deliver();
        } while (calls.decrementAndGet() > 0);
      }
    }

    private void deliver() {
      while (!isOver) {
        if (refused != null) {
          fail(refused);
        } else if (page != null) {
          if (!page.isDone()) {
            return;
          }
          takePage();
        } else if (isLastKnown && !known.hasNext()) {
          isOver = true;
          subscriber.onComplete();
        } else if (wanted.get() == 0) {
          return;
        } else if (known.hasNext()) {
          wanted.decrementAndGet();
          hand(known.next());
        } else {
          fetchPage();
        }
      }
    }

    /** One that fails to take an item is told so, as it is by a stream. */
    private void hand(T item) {
      try {
        subscriber.onNext(item);
      } catch (RuntimeException | Error error) {
        fail(error);
      }
    }

    private void fetchPage() {
      page = fetch.apply(token);
      page.whenComplete((fetched, error) -> goOn());
      if (isOver) {
        page.cancel(false);
      }
    }

    private void takePage() {
      try {
        P fetched = page.join();
        page = null;
        known = items.apply(fetched).iterator();
        token = nextToken.apply(fetched);
        isLastKnown = token.isEmpty();
      } catch (CompletionException error) {
        fail(error.getCause());
      } catch (CancellationException cancelled) {
        // By the subscriber, in another thread.
      }
    }

    private void fail(Throwable error) {
      isOver = true;
      subscriber.onError(error);
    }
  }
}
