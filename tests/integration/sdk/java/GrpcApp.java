import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.Empty;
import io.dapr.v1.AppCallbackGrpc;
import io.dapr.v1.AppCallbackHealthCheckGrpc;
import io.dapr.v1.CommonProtos.InvokeRequest;
import io.dapr.v1.CommonProtos.InvokeResponse;
import io.dapr.v1.DaprAppCallbackProtos.BindingEventRequest;
import io.dapr.v1.DaprAppCallbackProtos.BindingEventResponse;
import io.dapr.v1.DaprAppCallbackProtos.HealthCheckResponse;
import io.dapr.v1.DaprAppCallbackProtos.ListInputBindingsResponse;
import io.dapr.v1.DaprAppCallbackProtos.ListTopicSubscriptionsResponse;
import io.dapr.v1.DaprAppCallbackProtos.TopicEventRequest;
import io.dapr.v1.DaprAppCallbackProtos.TopicEventResponse;
import io.dapr.v1.DaprAppCallbackProtos.TopicEventResponse.TopicEventResponseStatus;
import io.dapr.v1.DaprAppCallbackProtos.TopicSubscription;
import io.grpc.Status;
import io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.StreamObserver;
import java.net.InetSocketAddress;
import java.util.concurrent.atomic.AtomicInteger;

/** An app that speaks gRPC: Dapr's callbacks as the SDK's generated classes have them. */
public final class GrpcApp extends AppCallbackGrpc.AppCallbackImplBase {
    private static final Events EVENTS = new Events();
    private final AtomicInteger attempts = new AtomicInteger();

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(System.getenv("APP_PORT"));
        NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", port))
            .addService(new GrpcApp())
            .addService(new AppCallbackHealthCheckGrpc.AppCallbackHealthCheckImplBase() {
                @Override
                public void healthCheck(Empty request, StreamObserver<HealthCheckResponse> out) {
                    answer(out, HealthCheckResponse.getDefaultInstance());
                }
            })
            .build().start().awaitTermination();
    }

    private static <T> void answer(StreamObserver<T> out, T message) {
        out.onNext(message);
        out.onCompleted();
    }

    @Override
    public void onInvoke(InvokeRequest request, StreamObserver<InvokeResponse> out) {
        ByteString data = request.getData().getValue();
        String type = request.getContentType();
        try {
            if (request.getMethod().equals("next-event")) {
                data = ByteString.copyFromUtf8(EVENTS.next(data.toStringUtf8()));
                type = "text/plain";
            } else if (request.getMethod().equals("verb")) {
                data = ByteString.copyFromUtf8(request.getHttpExtension().getVerb() + " "
                    + request.getHttpExtension().getQuerystring());
                type = "text/plain";
            } else if (!request.getMethod().equals("echo")) {
                out.onError(Status.NOT_FOUND.withDescription("no " + request.getMethod()).asRuntimeException());
                return;
            }
        } catch (InterruptedException | IllegalStateException error) {
            out.onError(Status.DEADLINE_EXCEEDED.withDescription(error.getMessage()).asRuntimeException());
            return;
        }
        answer(out, InvokeResponse.newBuilder().setContentType(type).setData(Any.newBuilder().setValue(data)).build());
    }

    @Override
    public void listTopicSubscriptions(Empty request, StreamObserver<ListTopicSubscriptionsResponse> out) {
        ListTopicSubscriptionsResponse.Builder all = ListTopicSubscriptionsResponse.newBuilder();
        for (String topic : new String[] {"java-grpc", "java-grpc-retried", "java-grpc-dead"}) {
            all.addSubscriptions(TopicSubscription.newBuilder().setPubsubName("events").setTopic(topic));
        }
        all.addSubscriptions(TopicSubscription.newBuilder().setPubsubName("events").setTopic("java-grpc-dropped")
            .setDeadLetterTopic("java-grpc-dead"));
        answer(out, all.build());
    }

    @Override
    public void listInputBindings(Empty request, StreamObserver<ListInputBindingsResponse> out) {
        answer(out, ListInputBindingsResponse.newBuilder().addBindings("tick").build());
    }

    @Override
    public void onBindingEvent(BindingEventRequest event, StreamObserver<BindingEventResponse> out) {
        EVENTS.add(event.getName(), "tock");
        answer(out, BindingEventResponse.getDefaultInstance());
    }

    @Override
    public void onTopicEvent(TopicEventRequest event, StreamObserver<TopicEventResponse> out) {
        TopicEventResponseStatus status = TopicEventResponseStatus.SUCCESS;
        if (event.getTopic().equals("java-grpc-dropped")) {
            status = TopicEventResponseStatus.DROP;
        } else if (event.getTopic().equals("java-grpc-retried") && attempts.incrementAndGet() == 1) {
            status = TopicEventResponseStatus.RETRY;
        } else {
            EVENTS.add(event.getTopic(), event.getSource() + " " + event.getDataContentType() + " "
                + event.getData().toStringUtf8());
        }
        answer(out, TopicEventResponse.newBuilder().setStatus(status).build());
    }
}
