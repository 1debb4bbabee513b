package suite;

import java.lang.reflect.Method;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.HashMap;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.MessageExt;

/** The cluster under test, and what the tests share. */
final class Cluster {
    static final String NAMESRV = System.getProperty("namesrv", "127.0.0.1:9876");
    private static final String RUN = Long.toString(System.currentTimeMillis() % 100_000_000L, 36);
    private static final AtomicInteger COUNT = new AtomicInteger();

    private Cluster() {
    }

    /** A name that no other test uses. */
    static String name(String prefix) {
        return prefix + "_" + RUN + "_" + COUNT.incrementAndGet();
    }

    static DefaultMQProducer producer() throws Exception {
        DefaultMQProducer p = new DefaultMQProducer(name("PG"));
        p.setNamesrvAddr(NAMESRV);
        p.setInstanceName(name("p"));
        p.setSendMsgTimeout(10_000);
        p.start();
        return p;
    }

    static DefaultMQPushConsumer consumer(String group) {
        DefaultMQPushConsumer c = new DefaultMQPushConsumer(group);
        c.setNamesrvAddr(NAMESRV);
        c.setInstanceName(name("c"));
        c.setConsumeFromWhere(org.apache.rocketmq.common.consumer.ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        return c;
    }

    /** Makes a topic. The signature differs between the release lines. */
    static void createTopic(DefaultMQProducer p, String topic, int queues) throws Exception {
        for (Method m : DefaultMQProducer.class.getMethods()) {
            if (!m.getName().equals("createTopic")) {
                continue;
            }
            Class<?>[] t = m.getParameterTypes();
            if (t.length == 3) {
                m.invoke(p, "TBW102", topic, queues);
                return;
            }
            if (t.length == 4 && t[3] == Map.class) {
                m.invoke(p, "TBW102", topic, queues, new HashMap<String, String>());
                return;
            }
        }
        throw new IllegalStateException("no createTopic");
    }

    /** Sets the message model, an enum that has moved between the release lines. */
    @SuppressWarnings({"unchecked", "rawtypes"})
    static void broadcasting(DefaultMQPushConsumer c) throws Exception {
        for (Method m : DefaultMQPushConsumer.class.getMethods()) {
            if (m.getName().equals("setMessageModel")) {
                m.invoke(c, Enum.valueOf((Class) m.getParameterTypes()[0], "BROADCASTING"));
                return;
            }
        }
        throw new IllegalStateException("no setMessageModel");
    }

    static void await(String what, long millis, Callable<Boolean> done) throws Exception {
        long end = System.currentTimeMillis() + millis;
        while (!done.call()) {
            if (System.currentTimeMillis() > end) {
                throw new AssertionError("not within " + millis + " ms: " + what);
            }
            Thread.sleep(20);
        }
    }

    static List<String> bodies(Iterable<MessageExt> msgs) {
        List<String> out = new ArrayList<>();
        for (MessageExt m : msgs) {
            out.add(new String(m.getBody(), java.nio.charset.StandardCharsets.UTF_8));
        }
        return out;
    }

    static List<String> numbered(String prefix, int n) {
        String[] a = new String[n];
        for (int i = 0; i < n; i++) {
            a[i] = prefix + i;
        }
        return Arrays.asList(a);
    }

    static final class Inbox extends ConcurrentLinkedQueue<MessageExt> {
    }
}
