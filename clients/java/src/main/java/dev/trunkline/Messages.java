package dev.trunkline;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonParseException;
import com.google.gson.Strictness;
import com.google.gson.ToNumberPolicy;
import com.google.gson.reflect.TypeToken;
import com.google.protobuf.ByteString;
import dev.trunkline.v1.Choice;
import dev.trunkline.v1.Completion;
import dev.trunkline.v1.JsonObjectFormat;
import dev.trunkline.v1.JsonSchemaFormat;
import dev.trunkline.v1.Media;
import dev.trunkline.v1.Message;
import dev.trunkline.v1.Part;
import dev.trunkline.v1.ResponseFormat;
import dev.trunkline.v1.Role;
import dev.trunkline.v1.Tool;
import dev.trunkline.v1.ToolCall;
import dev.trunkline.v1.ToolChoice;
import dev.trunkline.v1.ToolResult;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** Builds the contract's messages in few words, and reads those that come back. */
public final class Messages {
  private static final Gson JSON =
      new GsonBuilder()
          .setStrictness(Strictness.STRICT)
          .setObjectToNumberStrategy(ToNumberPolicy.LONG_OR_DOUBLE)
          .create();
  private static final TypeToken<Map<String, Object>> OBJECT = new TypeToken<>() {};

  private Messages() {}

  /** A system message. */
  public static Message system(String text) {
    return system(part(text));
  }

  /** A system message. */
  public static Message system(Part... parts) {
    return message(Role.ROLE_SYSTEM, parts);
  }

  /** A developer message: instructions that rank below the system's. */
  public static Message developer(String text) {
    return developer(part(text));
  }

  /** A developer message: instructions that rank below the system's. */
  public static Message developer(Part... parts) {
    return message(Role.ROLE_DEVELOPER, parts);
  }

  /** A user's turn. */
  public static Message user(String text) {
    return user(part(text));
  }

  /** A user's turn. */
  public static Message user(Part... parts) {
    return message(Role.ROLE_USER, parts);
  }

  /**
   * A model's turn, replayed. For an answer of the gateway use {@link #turns}, which keeps all of
   * it.
   */
  public static Message assistant(String text) {
    return assistant(part(text));
  }

  /**
   * A model's turn, replayed. For an answer of the gateway use {@link #turns}, which keeps all of
   * it.
   */
  public static Message assistant(Part... parts) {
    return message(Role.ROLE_ASSISTANT, parts);
  }

  /** The answer to one tool call; a message for each call. */
  public static Message toolResult(ToolCall call, String text) {
    return toolResult(call, false, part(text));
  }

  /**
   * The answer to one tool call; a message for each call.
   *
   * @param call of which nothing but the id needs to be known
   * @param isError the parts tell the model what went wrong
   */
  public static Message toolResult(ToolCall call, boolean isError, Part... parts) {
    var result =
        ToolResult.newBuilder()
            .setToolCallId(call.getId())
            .setToolName(call.getName())
            .addAllParts(List.of(parts))
            .setIsError(isError);
    return message(Role.ROLE_TOOL, Part.newBuilder().setToolResult(result).build());
  }

  /** A part of a message that is text. */
  public static Part part(String text) {
    return Part.newBuilder().setText(text).build();
  }

  /** A part of a model's turn that is a tool call. */
  public static Part part(ToolCall call) {
    return Part.newBuilder().setToolCall(call).build();
  }

  /** An image by address. */
  public static Part image(String url) {
    return image(Media.newBuilder().setUrl(url).build());
  }

  /**
   * An image by its bytes.
   *
   * @param mimeType IANA media type, as {@code image/png}
   */
  public static Part image(byte[] data, String mimeType) {
    return image(media(data, mimeType).build());
  }

  /** An image with whatever else the contract says of it, as its detail. */
  public static Part image(Media media) {
    return Part.newBuilder().setImage(media).build();
  }

  /** A document by address. */
  public static Part document(String url) {
    return document(Media.newBuilder().setUrl(url).build());
  }

  /**
   * A document by its bytes.
   *
   * @param mimeType IANA media type, as {@code application/pdf}
   * @param filename may be empty
   */
  public static Part document(byte[] data, String mimeType, String filename) {
    return document(media(data, mimeType).setFilename(filename).build());
  }

  /** A document with whatever else the contract says of it. */
  public static Part document(Media media) {
    return Part.newBuilder().setDocument(media).build();
  }

  /**
   * A tool that the caller runs.
   *
   * @param name [a-zA-Z0-9_-]{1,64}
   * @param description what the model is told about it
   * @param schemaJson JSON Schema of the arguments, an object's; it is sent as it is
   */
  public static Tool functionTool(String name, String description, String schemaJson) {
    return Tool.newBuilder()
        .setName(name)
        .setDescription(description)
        .setParametersSchemaJson(schemaJson)
        .build();
  }

  /**
   * A tool that the caller runs.
   *
   * @param strict arguments must match the schema exactly, where a provider can promise that
   * @see #functionTool(String, String, String)
   */
  public static Tool functionTool(
      String name, String description, String schemaJson, boolean strict) {
    return functionTool(name, description, schemaJson).toBuilder().setStrict(strict).build();
  }

  /** The model must call this tool. */
  public static ToolChoice onlyTool(String name) {
    return ToolChoice.newBuilder().setToolName(name).build();
  }

  /** The answer is a JSON object, of any shape. */
  public static ResponseFormat jsonObject() {
    return ResponseFormat.newBuilder().setJsonObject(JsonObjectFormat.getDefaultInstance()).build();
  }

  /** The answer is JSON that matches the schema, strictly. */
  public static ResponseFormat jsonSchema(String name, String schemaJson) {
    return jsonSchema(
        JsonSchemaFormat.newBuilder()
            .setName(name)
            .setSchemaJson(schemaJson)
            .setStrict(true)
            .build());
  }

  /** The answer is JSON that matches the schema, as the format says. */
  public static ResponseFormat jsonSchema(JsonSchemaFormat format) {
    return ResponseFormat.newBuilder().setJsonSchema(format).build();
  }

  /** The text of the first choice. */
  public static String text(Completion completion) {
    return text(completion, 0);
  }

  /** The text of one choice, all its text parts together; empty where it has none. */
  public static String text(Completion completion, int choiceIndex) {
    return answer(completion, choiceIndex)
        .filter(Part::hasText)
        .map(Part::getText)
        .collect(Collectors.joining());
  }

  /** The calls of the first choice. */
  public static List<ToolCall> toolCalls(Completion completion) {
    return toolCalls(completion, 0);
  }

  /** The calls that the caller is asked to run, in order; may be empty. */
  public static List<ToolCall> toolCalls(Completion completion, int choiceIndex) {
    return answer(completion, choiceIndex)
        .filter(Part::hasToolCall)
        .map(Part::getToolCall)
        .toList();
  }

  /**
   * The arguments of a call, decoded: maps, lists, strings, booleans, nulls, and numbers as Long or
   * Double.
   *
   * @throws IllegalArgumentException what the model wrote is no JSON object, as when its output was
   *     cut off at a length
   */
  public static Map<String, Object> arguments(ToolCall call) {
    String json = call.getArgumentsJson();
    try {
      Map<String, Object> decoded = JSON.fromJson(json.isEmpty() ? "{}" : json, OBJECT);
      if (decoded != null) {
        return decoded;
      }
    } catch (JsonParseException error) {
      // Not kept as a cause: its message repeats what the model wrote.
    }
    throw new IllegalArgumentException("the arguments are no JSON object");
  }

  /** What to append to the messages to go on after the first choice. */
  public static List<Message> turns(Completion completion) {
    return turns(completion, 0);
  }

  /**
   * What to append to the messages to go on: the turns of server-side tools, then the answer as it
   * is, whose parts keep opaque state that some providers must get back byte for byte.
   */
  public static List<Message> turns(Completion completion, int choiceIndex) {
    Stream<Message> answers = choices(completion, choiceIndex).map(Choice::getMessage);
    return Stream.concat(completion.getTranscriptList().stream(), answers).toList();
  }

  private static Message message(Role role, Part... parts) {
    return Message.newBuilder().setRole(role).addAllParts(List.of(parts)).build();
  }

  private static Media.Builder media(byte[] data, String mimeType) {
    if (mimeType.isEmpty()) {
      throw new IllegalArgumentException("data needs its mimeType");
    }
    return Media.newBuilder().setData(ByteString.copyFrom(data)).setMimeType(mimeType);
  }

  private static Stream<Part> answer(Completion completion, int choiceIndex) {
    return choices(completion, choiceIndex)
        .limit(1)
        .flatMap(choice -> choice.getMessage().getPartsList().stream());
  }

  private static Stream<Choice> choices(Completion completion, int choiceIndex) {
    return completion.getChoicesList().stream().filter(choice -> choice.getIndex() == choiceIndex);
  }
}
