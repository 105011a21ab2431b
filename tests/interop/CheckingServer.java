package io.grpc.testing.integration;

import com.google.protobuf.MessageLite;
import io.grpc.Context;
import io.grpc.ForwardingServerCallListener.SimpleForwardingServerCallListener;
import io.grpc.Metadata;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.ServerInterceptors;
import io.grpc.ServerStreamTracer;
import io.grpc.Status;
import io.grpc.netty.NettyServerBuilder;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;

/**
 * The published TestServiceImpl behind a check that it lacks and the compression cases ask for: a message that says
 * expect_compressed must have come compressed (and one that denies it must not), else INVALID_ARGUMENT.
 */
public final class CheckingServer {
    private static final Context.Key<Sizes> SIZES = Context.key("sizes");

    /** What the messages of one call took on the wire, in order. */
    private static final class Sizes extends ServerStreamTracer {
        final Queue<Long> wire = new ConcurrentLinkedQueue<>();

        @Override
        public Context filterContext(Context context) {
            return context.withValue(SIZES, this);
        }

        @Override
        public void inboundMessageRead(int number, long wireSize, long uncompressedSize) {
            wire.add(wireSize);
        }
    }

    private static final class Check implements ServerInterceptor {
        @Override
        public <Q, A> ServerCall.Listener<Q> interceptCall(ServerCall<Q, A> call, Metadata headers, ServerCallHandler<Q, A> next) {
            Sizes sizes = SIZES.get();
            return new SimpleForwardingServerCallListener<Q>(next.startCall(call, headers)) {
                private boolean isRefused;

                @Override
                public void onMessage(Q message) {
                    boolean isCompressed = sizes.wire.remove() != ((MessageLite) message).getSerializedSize();
                    Boolean expected = expectation(message);
                    if (expected != null && expected != isCompressed && !isRefused) {
                        isRefused = true;
                        call.close(Status.INVALID_ARGUMENT.withDescription("compressed: " + isCompressed), new Metadata());
                    }
                    if (!isRefused) {
                        super.onMessage(message);
                    }
                }

                @Override
                public void onHalfClose() {
                    if (!isRefused) {
                        super.onHalfClose();
                    }
                }
            };
        }
    }

    private static Boolean expectation(Object message) {
        if (message instanceof Messages.SimpleRequest && ((Messages.SimpleRequest) message).hasExpectCompressed()) {
            return ((Messages.SimpleRequest) message).getExpectCompressed().getValue();
        }
        if (message instanceof Messages.StreamingInputCallRequest
                && ((Messages.StreamingInputCallRequest) message).hasExpectCompressed()) {
            return ((Messages.StreamingInputCallRequest) message).getExpectCompressed().getValue();
        }
        return null;
    }

    public static void main(String[] args) throws Exception {
        ScheduledExecutorService executor = Executors.newSingleThreadScheduledExecutor();
        List<ServerInterceptor> interceptors = new ArrayList<>(TestServiceImpl.interceptors());
        interceptors.add(new Check());
        NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])))
            .addStreamTracerFactory(new ServerStreamTracer.Factory() {
                @Override
                public ServerStreamTracer newServerStreamTracer(String method, Metadata headers) {
                    return new Sizes();
                }
            })
            .addService(ServerInterceptors.intercept(new TestServiceImpl(executor), interceptors))
            .build().start().awaitTermination();
    }
}
