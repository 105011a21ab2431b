import com.google.protobuf.Empty;
import io.dapr.client.DaprClient;
import io.dapr.client.DaprClientBuilder;
import io.dapr.client.DaprPreviewClient;
import io.dapr.client.Subscription;
import io.dapr.client.SubscriptionListener;
import io.dapr.client.domain.BulkPublishResponse;
import io.dapr.client.domain.CloudEvent;
import io.dapr.client.domain.ComponentMetadata;
import io.dapr.client.domain.ConfigurationItem;
import io.dapr.client.domain.DaprMetadata;
import io.dapr.client.domain.HttpExtension;
import io.dapr.client.domain.PublishEventRequest;
import io.dapr.client.domain.State;
import io.dapr.client.domain.StateOptions;
import io.dapr.client.domain.TransactionalStateOperation;
import io.dapr.client.domain.TransactionalStateOperation.OperationType;
import io.dapr.client.domain.UnlockResponseStatus;
import io.dapr.exceptions.DaprException;
import io.dapr.utils.TypeRef;
import io.dapr.v1.AppCallbackHealthCheckGrpc;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import reactor.core.Disposable;
import reactor.core.publisher.Mono;

/** What a program with Dapr's Java SDK asks of its sidecar. run.py gives it ports by the SDK's own variables. */
public final class Checks {
    private static final String[] STORES = System.getenv("STORES").split(" ");
    private static final Duration WAIT = Duration.ofSeconds(20);
    private static final PrintStream OUT = System.out;
    private static DaprClient client;
    private static DaprPreviewClient preview;

    interface Body {
        void run() throws Exception;
    }

    private static void check(String name, Body body) {
        try {
            body.run();
            OUT.println("ok " + name);
        } catch (Throwable error) {
            error.printStackTrace();
            String text = String.valueOf(error).replaceAll("\\s+", " ");
            OUT.println("FAIL " + name + ": " + text.substring(0, Math.min(600, text.length())));
        }
        OUT.flush();
    }

    private static void equal(Object actual, Object expected) {
        if (!expected.equals(actual)) {
            throw new AssertionError("<" + actual + "> instead of <" + expected + ">");
        }
    }

    private static void holds(boolean is, String what) {
        if (!is) {
            throw new AssertionError(what);
        }
    }

    /** The error code that this must end in. */
    private static DaprException refused(Mono<?> mono) {
        try {
            mono.block(WAIT);
        } catch (DaprException error) {
            return error;
        }
        throw new AssertionError("was not refused");
    }

    private static <T> T wait(Mono<T> mono) {
        return mono.block(WAIT);
    }

    private static String nextEvent(String app, String topic) {
        byte[] body = topic.getBytes(StandardCharsets.UTF_8);
        Map<String, String> headers = Map.of("Content-Type", "text/plain");
        return new String(wait(client.invokeMethod(app, "next-event", body, HttpExtension.POST, headers)), StandardCharsets.UTF_8);
    }

    public static void main(String[] args) throws Exception {
        System.setOut(System.err);
        client = new DaprClientBuilder().build();
        preview = new DaprClientBuilder().buildPreviewClient();
        check("health_wait", () -> wait(client.waitForSidecar(20000)));
        check("metadata", Checks::metadata);
        check("secrets", Checks::secrets);
        if (List.of(STORES).contains("redis")) {
            check("configuration", Checks::configuration);
            check("locks", Checks::locks);
        }
        state();
        invocation();
        events();
        streaming();
        bindings();
        check("shutdown", () -> wait(client.shutdown()));
        OUT.println("end");
        System.exit(0);
    }

    private static void metadata() {
        DaprMetadata found = wait(client.getMetadata());
        equal(found.getId(), "client");
        ComponentMetadata memory = found.getComponents().stream().filter(c -> c.getName().equals("memory")).findFirst().get();
        equal(memory.getType(), "state.in-memory");
        holds(memory.getCapabilities().contains("ETAG"), "capabilities " + memory.getCapabilities());
        holds(!found.getRuntimeVersion().isEmpty(), "no version");
    }

    private static void secrets() {
        equal(wait(client.getSecret("vault", "password")), Map.of("password", "s3cret"));
        Map<String, Map<String, String>> bulk = wait(client.getBulkSecret("vault"));
        equal(bulk.get("password"), Map.of("password", "s3cret"));
        equal(bulk.get("nested:key"), Map.of("nested:key", "value"));
        refused(client.getSecret("vault", "absent"));
    }

    private static void configuration() {
        ConfigurationItem item = wait(client.getConfiguration("conf", "colour"));
        equal(item.getValue() + item.getVersion(), "bluev1");
        List<Integer> seen = client.subscribeConfiguration("conf", "beat")
                .filter(r -> r.getItems() != null && r.getItems().containsKey("beat"))
                .map(r -> Integer.valueOf(r.getItems().get("beat").getValue())).take(3).collectList().block(WAIT);
        holds(seen.get(0) < seen.get(1) && seen.get(1) < seen.get(2), "beats " + seen);
        refused(client.getConfiguration("nowhere", "k"));
    }

    private static void locks() {
        String resource = UUID.randomUUID().toString();
        equal(wait(preview.tryLock("locks", resource, "me", 60)), true);
        equal(wait(preview.tryLock("locks", resource, "you", 60)), false);
        equal(wait(preview.unlock("locks", resource, "you")), UnlockResponseStatus.LOCK_BELONG_TO_OTHERS);
        equal(wait(preview.unlock("locks", resource, "me")), UnlockResponseStatus.SUCCESS);
        refused(preview.tryLock("nowhere", resource, "me", 60));
    }

    private static void state() {
        check("state_save_get_delete", () -> {
            for (String store : STORES) {
                String key = UUID.randomUUID().toString();
                equal(String.valueOf(wait(client.getState(store, key, String.class)).getValue()), "null");
                wait(client.saveState(store, key, "one"));
                State<String> first = wait(client.getState(store, key, String.class));
                wait(client.saveState(store, key, null, "two", Map.of("ttlInSeconds", "600"), null));
                State<String> second = wait(client.getState(store, key, String.class));
                equal(first.getValue() + second.getValue(), "onetwo");
                holds(!first.getEtag().equals(second.getEtag()), "the etag stayed");
                wait(client.deleteState(store, key));
                equal(String.valueOf(wait(client.getState(store, key, String.class)).getValue()), "null");
            }
        });
        check("state_etags", () -> {
            StateOptions first = new StateOptions(StateOptions.Consistency.STRONG, StateOptions.Concurrency.FIRST_WRITE);
            for (String store : STORES) {
                String key = UUID.randomUUID().toString();
                wait(client.saveState(store, key, "1"));
                String etag = wait(client.getState(store, key, String.class)).getEtag();
                wait(client.saveState(store, key, etag, "2", first));
                equal(refused(client.saveState(store, key, etag, "3", first)).getErrorCode(), "ABORTED");
                equal(refused(client.deleteState(store, key, etag, first)).getErrorCode(), "ABORTED");
                State<String> now = wait(client.getState(store, key, String.class));
                equal(now.getValue(), "2");
                wait(client.deleteState(store, key, now.getEtag(), first));
                equal(String.valueOf(wait(client.getState(store, key, String.class)).getValue()), "null");
            }
        });
        check("state_bulk", () -> {
            for (String store : STORES) {
                List<State<?>> items = new ArrayList<>();
                List<String> keys = new ArrayList<>();
                for (int i = 0; i < 20; i++) {
                    keys.add(UUID.randomUUID().toString());
                    items.add(new State<>(keys.get(i), "v" + i, (String) null));
                }
                wait(client.saveBulkState(store, items));
                keys.add("absent");
                List<State<String>> found = wait(client.getBulkState(store, keys, String.class));
                equal(found.size(), 21);
                for (State<String> item : found) {
                    int at = keys.indexOf(item.getKey());
                    equal(String.valueOf(item.getValue()), at == 20 ? "null" : "v" + at);
                }
            }
        });
        check("state_transaction", () -> {
            for (String store : STORES) {
                String a = UUID.randomUUID().toString();
                String b = UUID.randomUUID().toString();
                wait(client.saveState(store, b, "old"));
                wait(client.executeStateTransaction(store, List.of(
                    new TransactionalStateOperation<>(OperationType.UPSERT, new State<>(a, "new", (String) null)),
                    new TransactionalStateOperation<>(OperationType.DELETE, new State<>(b)))));
                equal(wait(client.getState(store, a, String.class)).getValue(), "new");
                equal(String.valueOf(wait(client.getState(store, b, String.class)).getValue()), "null");
                refused(client.executeStateTransaction(store, List.of(
                    new TransactionalStateOperation<>(OperationType.UPSERT, new State<>(b, "half", (String) null)),
                    new TransactionalStateOperation<>(OperationType.UPSERT, new State<>(a, "x", "424242")))));
                equal(String.valueOf(wait(client.getState(store, b, String.class)).getValue()), "null");
            }
        });
        check("unknown_names_are_refused", () -> {
            DaprException error = refused(client.getState("nowhere", "k", String.class));
            equal(error.getErrorCode(), "INVALID_ARGUMENT");
            holds(error.getMessage().contains("nowhere"), error.getMessage());
            equal(refused(client.publishEvent("nowhere", "t", "x")).getErrorCode(), "INVALID_ARGUMENT");
        });
    }

    private static void invocation() {
        check("invoke_http_app", () -> {
            equal(wait(client.invokeMethod("http-app", "echo", Map.of("a", 1), HttpExtension.POST, new TypeRef<Map<String, Integer>>() {})),
                Map.of("a", 1));
            HttpExtension put = new HttpExtension(HttpExtension.PUT.getMethod(), Map.of("q", List.of("1")), Map.of("x-question", "why"));
            equal(wait(client.invokeMethod("http-app", "about", null, put, String.class)), "PUT q=1 why client app-secret");
            DaprException error = refused(client.invokeMethod("http-app", "absent", HttpExtension.GET, Map.of()));
            equal(error.getHttpStatusCode(), 404);
        });
        check("invoke_grpc_app", () -> {
            equal(wait(client.invokeMethod("grpc-app", "echo", Map.of("a", 1), HttpExtension.POST, new TypeRef<Map<String, Integer>>() {})),
                Map.of("a", 1));
            HttpExtension put = new HttpExtension(HttpExtension.PUT.getMethod(), Map.of("q", List.of("1")), Map.of());
            byte[] verb = wait(client.invokeMethod("grpc-app", "verb", new byte[0], put, Map.of()));
            equal(new String(verb, StandardCharsets.UTF_8), "PUT q=1");
            equal(refused(client.invokeMethod("grpc-app", "absent", HttpExtension.GET, Map.of())).getHttpStatusCode(), 404);
            holds(refused(client.invokeMethod("nobody", "x", HttpExtension.GET, Map.of())).getHttpStatusCode() >= 500, "status");
        });
        check("proxied_stub", () ->
            client.newGrpcStub("grpc-app", AppCallbackHealthCheckGrpc::newBlockingStub)
                .withDeadlineAfter(20, TimeUnit.SECONDS).healthCheck(Empty.getDefaultInstance()));
    }

    private static void events() {
        for (String kind : new String[] {"grpc", "http"}) {
            String app = kind + "-app";
            String topic = "java-" + kind;
            check("publish_to_" + kind + "_app", () -> {
                wait(client.publishEvent("events", topic, Map.of("n", 1)));
                String text = nextEvent(app, topic);
                equal(text, "client application/json " + (kind.equals("grpc") ? "{\"n\":1}" : "{n=1}"));
                wait(client.publishEvent(new PublishEventRequest("events", topic, "just text").setContentType("text/plain")));
                text = nextEvent(app, topic);
                holds(text.startsWith("client text/plain ") && text.contains("just text"), text);
            });
            check("publish_bulk_to_" + kind + "_app", () -> {
                BulkPublishResponse<String> answer = wait(client.publishEvents("events", topic, "text/plain", "one", "two", "three"));
                equal(answer.getFailedEntries(), List.of());
                TreeSet<String> got = new TreeSet<>();
                for (int i = 0; i < 3; i++) {
                    got.add(nextEvent(app, topic).replaceAll("^.* |\"", ""));
                }
                equal(got, new TreeSet<>(List.of("one", "two", "three")));
            });
            check("retries_and_dead_letters_of_" + kind + "_app", () -> {
                wait(client.publishEvent("events", topic + "-retried", "again"));
                holds(nextEvent(app, topic + "-retried").contains("again"), "data");
                wait(client.publishEvent("events", topic + "-dropped", "dead"));
                holds(nextEvent(app, topic + "-dead").contains("dead"), "data");
            });
        }
    }

    private static void bindings() {
        check("output_binding", () -> {
            byte[] value = UUID.randomUUID().toString().getBytes(StandardCharsets.UTF_8);
            Map<String, String> file = Map.of("fileName", "java.txt");
            wait(client.invokeBinding("files", "create", value, file));
            equal(new String(wait(client.invokeBinding("files", "get", new byte[0], file)), StandardCharsets.UTF_8),
                new String(value, StandardCharsets.UTF_8));
            holds(refused(client.invokeBinding("files", "fly", "")).getMessage().contains("fly"), "message");
        });
        for (String app : new String[] {"grpc-app", "http-app"}) {
            check("input_binding_of_" + app, () -> equal(nextEvent(app, "tick"), "tock"));
        }
    }

    private static void streaming() {
        check("streaming_subscription_with_listener", () -> {
            BlockingQueue<CloudEvent<String>> arrived = new LinkedBlockingQueue<>();
            AtomicInteger attempts = new AtomicInteger();
            Subscription<?> subscription = preview.subscribeToEvents("events", "java-stream", new SubscriptionListener<String>() {
                @Override
                public Mono<Status> onEvent(CloudEvent<String> event) {
                    if (attempts.incrementAndGet() == 1) {
                        return Mono.just(Status.RETRY);
                    }
                    arrived.add(event);
                    return Mono.just(Status.SUCCESS);
                }

                @Override
                public void onError(RuntimeException error) {
                    error.printStackTrace();
                }
            }, TypeRef.STRING);
            wait(client.publishEvent("events", "java-stream", "hello"));
            CloudEvent<String> event = arrived.poll(20, TimeUnit.SECONDS);
            holds(event != null, "no event");
            equal(event.getData(), "hello");
            equal(event.getTopic(), "java-stream");
            equal(event.getPubsubName(), "events");
            subscription.close();
            subscription.awaitTermination();
        });
        check("streaming_subscription_with_flux", () -> {
            BlockingQueue<String> arrived = new LinkedBlockingQueue<>();
            Disposable subscription = preview.subscribeToTopic("events", "java-flux", TypeRef.STRING).subscribe(arrived::add);
            TreeSet<String> got = new TreeSet<>();
            TreeSet<String> expected = new TreeSet<>();
            for (int i = 0; i < 20; i++) {
                expected.add("n" + i);
                wait(client.publishEvent("events", "java-flux", "n" + i));
            }
            while (got.size() < expected.size() && got.add(String.valueOf(arrived.poll(20, TimeUnit.SECONDS)))) {
                // a time-out adds "null", once
            }
            equal(got, expected);
            subscription.dispose();
        });
    }
}
