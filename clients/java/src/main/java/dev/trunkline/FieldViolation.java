package dev.trunkline;

import java.io.Serializable;

/**
 * One thing that is wrong with a request.
 *
 * @param field its path, as {@code spec.messages[0].parts}
 * @param description for a person to read
 * @param reason a word for programs; may be empty
 */
public record FieldViolation(String field, String description, String reason)
    implements Serializable {}
