package dev.trunkline;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.google.protobuf.ByteString;
import dev.trunkline.v1.Choice;
import dev.trunkline.v1.Completion;
import dev.trunkline.v1.CompletionSpec;
import dev.trunkline.v1.Media;
import dev.trunkline.v1.Message;
import dev.trunkline.v1.ReasoningEffort;
import dev.trunkline.v1.Role;
import dev.trunkline.v1.RoutingConstraints;
import dev.trunkline.v1.Tool;
import dev.trunkline.v1.ToolCall;
import dev.trunkline.v1.ToolChoiceMode;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class MessagesTest {
  @Test
  void eachRoleHasItsBuilder() {
    assertEquals(Role.ROLE_SYSTEM, Messages.system("s").getRole());
    assertEquals(Role.ROLE_DEVELOPER, Messages.developer("d").getRole());
    assertEquals(Role.ROLE_ASSISTANT, Messages.assistant("a").getRole());
    assertEquals(
        Message.newBuilder()
            .setRole(Role.ROLE_USER)
            .addParts(Messages.part("u"))
            .addParts(Messages.part("v"))
            .build(),
        Messages.user(Messages.part("u"), Messages.part("v")));
  }

  @Test
  void aToolsResultNamesItsCall() {
    var result =
        Messages.toolResult(call("a", "{}"), true, Messages.part("r")).getParts(0).getToolResult();

    assertEquals("a", result.getToolCallId());
    assertEquals("f", result.getToolName());
    assertEquals(List.of(Messages.part("r")), result.getPartsList());
    assertEquals(true, result.getIsError());
  }

  @Test
  void mediaAreGivenByAddressOrByBytes() {
    assertEquals(
        "https://example.com/a.png",
        Messages.image("https://example.com/a.png").getImage().getUrl());
    assertEquals(
        Media.newBuilder()
            .setData(ByteString.copyFromUtf8("%PDF"))
            .setMimeType("application/pdf")
            .setFilename("a.pdf")
            .build(),
        Messages.document("%PDF".getBytes(), "application/pdf", "a.pdf").getDocument());
    assertThrows(IllegalArgumentException.class, () -> Messages.image(new byte[1], ""));
  }

  @Test
  void aSchemaIsSentAsItIs() {
    var schema = "{\"z\": 1, \"a\": {}}";

    assertEquals(schema, Messages.functionTool("f", "", schema).getParametersSchemaJson());
    assertFalse(Messages.functionTool("f", "", schema).hasStrict());
    assertEquals(true, Messages.functionTool("f", "", schema, true).getStrict());
    assertEquals(schema, Messages.jsonSchema("n", schema).getJsonSchema().getSchemaJson());
  }

  @Test
  void anAnswerIsReadByChoice() {
    var first =
        Messages.assistant(Messages.part("a"), Messages.part(call("1", "")), Messages.part("b"));
    var completion =
        Completion.newBuilder()
            .addTranscript(Messages.user("earlier"))
            .addChoices(Choice.newBuilder().setMessage(first))
            .addChoices(Choice.newBuilder().setIndex(1).setMessage(Messages.assistant("other")))
            .build();

    assertEquals("ab", Messages.text(completion));
    assertEquals("other", Messages.text(completion, 1));
    assertEquals("", Messages.text(completion, 2));
    assertEquals(List.of(call("1", "")), Messages.toolCalls(completion));
    assertEquals(List.of(), Messages.toolCalls(completion, 1));
    assertEquals(List.of(Messages.user("earlier"), first), Messages.turns(completion));
  }

  @Test
  void argumentsAreDecoded() {
    assertEquals(Map.of(), Messages.arguments(call("1", "")));
    assertEquals(
        Map.of("n", 9007199254740993L, "x", 0.5, "l", List.of(1L, "a")),
        Messages.arguments(call("1", "{\"n\":9007199254740993,\"x\":0.5,\"l\":[1,\"a\"]}")));
  }

  @ParameterizedTest
  @ValueSource(strings = {"{\"secret\":", "[1]", "\"secret\"", "null", "{secret: 1}", "{} {}"})
  void argumentsThatAreNoJsonObjectAreRefusedWithoutRepeatingThem(String json) {
    var call = call("1", json);

    var refused = assertThrows(IllegalArgumentException.class, () -> Messages.arguments(call));

    assertEquals("the arguments are no JSON object", refused.getMessage());
  }

  @Test
  void optionsBecomeASpec() {
    var tool = Tool.newBuilder().setName("f").build();
    var options =
        SpecOptions.builder()
            .model("m")
            .systemPrompt("s")
            .temperature(0)
            .maxOutputTokens(5)
            .stop(".")
            .tools(tool)
            .toolChoice(ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED)
            .parallelToolCalls(false)
            .responseFormat(Messages.jsonObject())
            .reasoningEffort(ReasoningEffort.REASONING_EFFORT_HIGH)
            .includeReasoning(true)
            .constraints(RoutingConstraints.newBuilder().setMaxAttempts(1).build())
            .labels(Map.of("team", "a"))
            .metadataJson("{\"a\":1}")
            .mode("fast")
            .build();

    var expected = CompletionSpec.newBuilder().setModel("m").setSystemPrompt("s").setMode("fast");
    expected.addMessages(Messages.user("Hi"));
    expected.getSamplingBuilder().setTemperature(0).setMaxOutputTokens(5).addStop(".");
    expected.getToolOptionsBuilder().addTools(tool).setParallelCalls(false);
    expected
        .getToolOptionsBuilder()
        .getChoiceBuilder()
        .setMode(ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED);
    expected.setResponseFormat(Messages.jsonObject());
    expected
        .getReasoningBuilder()
        .setEffort(ReasoningEffort.REASONING_EFFORT_HIGH)
        .setInclude(true);
    expected.getConstraintsBuilder().setMaxAttempts(1);
    expected.putLabels("team", "a").setMetadataJson("{\"a\":1}");
    assertEquals(expected.build(), options.spec("Hi"));
  }

  private static ToolCall call(String id, String argumentsJson) {
    return ToolCall.newBuilder().setId(id).setName("f").setArgumentsJson(argumentsJson).build();
  }
}
