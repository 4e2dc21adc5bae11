package dev.trunkline;

import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.function.Function;

/**
 * The pages of a listing, each fetched when it is asked for.
 *
 * @param <P> one page, whose last has no token for the next one
 */
final class Pages<P> implements Iterator<P> {
  private final Function<String, P> fetch;
  private final Function<P, String> nextToken;
  private String token = "";
  private boolean isOver;

  Pages(Function<String, P> fetch, Function<P, String> nextToken) {
    this.fetch = fetch;
    this.nextToken = nextToken;
  }

  @Override
  public boolean hasNext() {
    return !isOver;
  }

  @Override
  public P next() {
    if (isOver) {
      throw new NoSuchElementException();
    }
    P page = fetch.apply(token);
    token = nextToken.apply(page);
    isOver = token.isEmpty();
    return page;
  }
}
