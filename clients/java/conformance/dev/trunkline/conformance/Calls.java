package dev.trunkline.conformance;

import dev.trunkline.v1.CompleteRequest;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.stub.MetadataUtils;

/** A client of one flavour, and all that a case may do with it. */
interface Calls extends AutoCloseable {
  int MOST_TURNS = 8;
  int WARM_UP_STREAMS = 100;
  String PROMPT = "Hi";

  /** Makes the calls of one case, and tells what it sees. */
  void make(Order order, Seen seen) throws Exception;

  @Override
  void close();

  /** What gRPC offers without this client, to measure against. */
  static ManagedChannel rawChannel(Order order) {
    return Grpc.newChannelBuilder(order.target(), InsecureChannelCredentials.create())
        .intercept(MetadataUtils.newAttachHeadersInterceptor(order.headers()))
        .build();
  }

  static CompleteRequest rawRequest(Order order) {
    return CompleteRequest.newBuilder().setSpec(order.options().spec(PROMPT)).build();
  }
}
