import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import io.dapr.client.domain.CloudEvent;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;

/** An app that speaks HTTP; events are read with the SDK's CloudEvent. */
public final class HttpApp {
    private static final Events EVENTS = new Events();
    private static final AtomicInteger ATTEMPTS = new AtomicInteger();
    private static final String SUBSCRIPTIONS = "["
        + "{\"pubsubname\":\"events\",\"topic\":\"java-http\",\"route\":\"/on-event\"},"
        + "{\"pubsubname\":\"events\",\"topic\":\"java-http-retried\",\"route\":\"/on-retried\"},"
        + "{\"pubsubname\":\"events\",\"topic\":\"java-http-dropped\",\"route\":\"/on-dropped\",\"deadLetterTopic\":\"java-http-dead\"},"
        + "{\"pubsubname\":\"events\",\"topic\":\"java-http-dead\",\"route\":\"/on-dead\"}]";

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(System.getenv("APP_PORT"));
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", HttpApp::serve);
        server.start();
    }

    private static void serve(HttpExchange x) throws IOException {
        byte[] body = x.getRequestBody().readAllBytes();
        int status = 200;
        String type = "application/json";
        byte[] answer = "{}".getBytes(StandardCharsets.UTF_8);
        switch (x.getRequestURI().getPath()) {
            case "/dapr/subscribe" -> answer = SUBSCRIPTIONS.getBytes(StandardCharsets.UTF_8);
            case "/echo" -> {
                answer = body;
                type = x.getRequestHeaders().getFirst("Content-Type");
                x.getResponseHeaders().set("x-answer", "yes");
            }
            case "/healthz" -> { }
            case "/about" -> answer = about(x).getBytes(StandardCharsets.UTF_8);
            case "/next-event" -> {
                try {
                    answer = EVENTS.next(new String(body, StandardCharsets.UTF_8)).getBytes(StandardCharsets.UTF_8);
                    type = "text/plain";
                } catch (InterruptedException | IllegalStateException error) {
                    status = 504;
                }
            }
            case "/tick" -> {
                if (x.getRequestMethod().equals("POST")) {  // OPTIONS asks whether we want it
                    EVENTS.add("tick", "tock");
                }
            }
            case "/on-event" -> arrived("java-http", body);
            case "/on-dead" -> arrived("java-http-dead", body);
            case "/on-retried" -> {
                if (ATTEMPTS.incrementAndGet() == 1) {
                    answer = "{\"status\":\"RETRY\"}".getBytes(StandardCharsets.UTF_8);
                } else {
                    arrived("java-http-retried", body);
                }
            }
            case "/on-dropped" -> answer = "{\"status\":\"DROP\"}".getBytes(StandardCharsets.UTF_8);
            default -> status = 404;
        }
        if (type != null) {
            x.getResponseHeaders().set("Content-Type", type);
        }
        x.sendResponseHeaders(status, answer.length == 0 ? -1 : answer.length);
        x.getResponseBody().write(answer);
        x.close();
    }

    private static String about(HttpExchange x) {
        return "\"" + x.getRequestMethod() + " " + x.getRequestURI().getQuery() + " "
            + x.getRequestHeaders().getFirst("x-question") + " "
            + x.getRequestHeaders().getFirst("dapr-caller-app-id") + " "
            + x.getRequestHeaders().getFirst("dapr-api-token") + "\"";
    }

    /** A dead letter keeps the topic that it was published to in its envelope, so the route says where it came from. */
    private static void arrived(String topic, byte[] body) throws IOException {
        CloudEvent<?> event = CloudEvent.deserialize(body);
        EVENTS.add(topic, event.getSource() + " " + event.getDatacontenttype() + " " + event.getData());
    }
}
