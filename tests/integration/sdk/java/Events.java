import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** What an app has received and nobody has asked for yet, by topic. */
final class Events {
    private final Map<String, BlockingQueue<String>> queues = new ConcurrentHashMap<>();

    private BlockingQueue<String> of(String topic) {
        return queues.computeIfAbsent(topic, name -> new LinkedBlockingQueue<>());
    }

    void add(String topic, String text) {
        of(topic).add(text);
    }

    /** Waits for one. */
    String next(String topic) throws InterruptedException {
        String text = of(topic).poll(20, TimeUnit.SECONDS);
        if (text == null) {
            throw new IllegalStateException("no event on " + topic);
        }
        return text;
    }
}
