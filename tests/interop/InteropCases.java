package io.grpc.testing.integration;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;

/**
 * Runs cases of gRPC's own TestServiceClient one after another in one virtual machine.
 *
 * Reads lines "NAME FLAG..." from standard input, the flags being TestServiceClient's. For each, prints "ok NAME" or
 * "FAIL NAME reason" with the stack trace on standard error. In the client's package since its entry points are not
 * public; the client itself is the published one.
 */
public final class InteropCases {
    public static void main(String[] args) throws Exception {
        PrintStream out = System.out;
        System.setOut(System.err);  // the client talks, too
        // as the client's main does for the cases that ask for it
        io.grpc.LoadBalancerRegistry.getDefaultRegistry().register(new CustomBackendMetricsLoadBalancerProvider());
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] words = line.split(" ");
            String[] flags = java.util.Arrays.copyOfRange(words, 1, words.length);
            String trouble = run(flags);
            out.println(trouble == null ? "ok " + words[0] : "FAIL " + words[0] + " " + trouble);
            out.flush();
        }
        System.exit(0);
    }

    private static String run(String[] flags) {
        TestServiceClient client = new TestServiceClient();
        try {
            client.parseArgs(flags);
            client.setUp();
            try {
                call(client, "run");
            } finally {
                call(client, "tearDown");
            }
            return null;
        } catch (Throwable error) {
            Throwable cause = error instanceof InvocationTargetException ? error.getCause() : error;
            cause.printStackTrace();
            StringBuilder text = new StringBuilder();
            for (Throwable at = cause; at != null; at = at.getCause()) {
                text.append(text.length() > 0 ? " / " : "").append(at);
            }
            return text.toString().replaceAll("\\s+", " ");
        }
    }

    private static void call(TestServiceClient client, String name) throws Exception {
        Method method = TestServiceClient.class.getDeclaredMethod(name);
        method.setAccessible(true);
        method.invoke(client);
    }
}
