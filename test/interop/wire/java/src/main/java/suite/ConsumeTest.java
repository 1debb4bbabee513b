package suite;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;
import org.junit.AfterClass;
import org.junit.BeforeClass;
import org.junit.Test;

/** Every way to consume. */
public class ConsumeTest {
    private static DefaultMQProducer producer;

    @BeforeClass
    public static void start() throws Exception {
        producer = Cluster.producer();
    }

    @AfterClass
    public static void stop() {
        producer.shutdown();
    }

    private static void send(String topic, String tag, String prefix, int n) throws Exception {
        for (int i = 0; i < n; i++) {
            producer.send(new Message(topic, tag, prefix + i, (prefix + i).getBytes(StandardCharsets.UTF_8)));
        }
    }

    private static DefaultMQPushConsumer into(String group, String topic, String expression, ConcurrentLinkedQueue<MessageExt> box) throws Exception {
        DefaultMQPushConsumer c = Cluster.consumer(group);
        c.subscribe(topic, expression);
        c.registerMessageListener((MessageListenerConcurrently) (msgs, ctx) -> {
            box.addAll(msgs);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        c.start();
        return c;
    }

    private static void awaitExactly(Cluster.Inbox box, List<String> want) throws Exception {
        Cluster.await(want.size() + " messages, have " + box.size(), 60_000, () -> box.size() >= want.size());
        Set<String> got = new TreeSet<>(Cluster.bodies(box));
        assertEquals(new TreeSet<>(want), got);
    }

    @Test
    public void concurrently() throws Exception {
        String topic = Cluster.name("Push");
        Cluster.createTopic(producer, topic, 4);
        Cluster.Inbox box = new Cluster.Inbox();
        DefaultMQPushConsumer c = into(Cluster.name("G"), topic, "*", box);
        try {
            send(topic, "T", "m", 200);
            awaitExactly(box, Cluster.numbered("m", 200));
            assertEquals(200, box.size());
            MessageExt m = box.peek();
            assertEquals(topic, m.getTopic());
            assertTrue(m.getQueueOffset() >= 0);
            assertEquals("0", m.getProperty("MIN_OFFSET"));
        } finally {
            c.shutdown();
        }
    }

    @Test
    public void offsetsOutliveTheConsumer() throws Exception {
        String topic = Cluster.name("Resume");
        String group = Cluster.name("G");
        Cluster.createTopic(producer, topic, 2);
        Cluster.Inbox first = new Cluster.Inbox();
        DefaultMQPushConsumer c = into(group, topic, "*", first);
        send(topic, "T", "a", 50);
        awaitExactly(first, Cluster.numbered("a", 50));
        c.shutdown();
        send(topic, "T", "b", 50);
        Cluster.Inbox second = new Cluster.Inbox();
        c = into(group, topic, "*", second);
        try {
            awaitExactly(second, Cluster.numbered("b", 50));
            assertEquals(50, second.size());
        } finally {
            c.shutdown();
        }
    }

    @Test
    public void tags() throws Exception {
        String topic = Cluster.name("Tags");
        Cluster.createTopic(producer, topic, 2);
        Cluster.Inbox box = new Cluster.Inbox();
        DefaultMQPushConsumer c = into(Cluster.name("G"), topic, "red || blue", box);
        try {
            send(topic, "green", "g", 40);
            send(topic, "red", "r", 20);
            send(topic, "green", "h", 40);
            send(topic, "blue", "b", 20);
            List<String> want = new ArrayList<>(Cluster.numbered("r", 20));
            want.addAll(Cluster.numbered("b", 20));
            awaitExactly(box, want);
        } finally {
            c.shutdown();
        }
    }

    @Test
    public void orderly() throws Exception {
        String topic = Cluster.name("Order");
        Cluster.createTopic(producer, topic, 4);
        Map<Integer, List<String>> seen = new ConcurrentHashMap<>();
        DefaultMQPushConsumer c = Cluster.consumer(Cluster.name("G"));
        c.subscribe(topic, "*");
        Set<String> failedOnce = ConcurrentHashMap.newKeySet();
        c.registerMessageListener((MessageListenerOrderly) (msgs, ctx) -> {
            for (MessageExt m : msgs) {
                String body = new String(m.getBody(), StandardCharsets.UTF_8);
                if (body.endsWith("7") && failedOnce.add(body)) {
                    return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
                }
                seen.computeIfAbsent(m.getQueueId(), k -> Collections.synchronizedList(new ArrayList<>())).add(body);
            }
            return ConsumeOrderlyStatus.SUCCESS;
        });
        c.setConsumeMessageBatchMaxSize(1);
        c.start();
        try {
            Map<Integer, List<String>> sent = new HashMap<>();
            for (int i = 0; i < 100; i++) {
                String body = "o" + i;
                int queue = producer.send(new Message(topic, body.getBytes(StandardCharsets.UTF_8)),
                    (qs, msg, arg) -> qs.get((Integer) arg % qs.size()), i % 4).getMessageQueue().getQueueId();
                sent.computeIfAbsent(queue, k -> new ArrayList<>()).add(body);
            }
            Cluster.await("100 ordered messages", 90_000, () -> seen.values().stream().mapToInt(List::size).sum() >= 100);
            assertEquals(sent, new HashMap<>(seen));
        } finally {
            c.shutdown();
        }
    }

    @Test
    public void broadcast() throws Exception {
        String topic = Cluster.name("Cast");
        String group = Cluster.name("G");
        Cluster.createTopic(producer, topic, 2);
        List<Cluster.Inbox> boxes = new ArrayList<>();
        List<DefaultMQPushConsumer> consumers = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            Cluster.Inbox box = new Cluster.Inbox();
            DefaultMQPushConsumer c = Cluster.consumer(group);
            Cluster.broadcasting(c);
            c.subscribe(topic, "*");
            c.registerMessageListener((MessageListenerConcurrently) (msgs, ctx) -> {
                box.addAll(msgs);
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            c.start();
            boxes.add(box);
            consumers.add(c);
        }
        try {
            send(topic, "T", "m", 50);
            for (Cluster.Inbox box : boxes) {
                awaitExactly(box, Cluster.numbered("m", 50));
            }
        } finally {
            consumers.forEach(DefaultMQPushConsumer::shutdown);
        }
    }

    @Test
    public void retriesThenDeadLetter() throws Exception {
        String topic = Cluster.name("Retry");
        String group = Cluster.name("G");
        Cluster.createTopic(producer, topic, 1);
        Map<String, List<Integer>> times = new ConcurrentHashMap<>();
        DefaultMQPushConsumer c = Cluster.consumer(group);
        c.subscribe(topic, "*");
        c.setMaxReconsumeTimes(2);
        c.setConsumeMessageBatchMaxSize(1);
        c.registerMessageListener((MessageListenerConcurrently) (msgs, ctx) -> {
            for (MessageExt m : msgs) {
                assertEquals(topic, m.getTopic());
                times.computeIfAbsent(new String(m.getBody(), StandardCharsets.UTF_8), k -> Collections.synchronizedList(new ArrayList<>()))
                    .add(m.getReconsumeTimes());
            }
            ctx.setDelayLevelWhenNextConsume(1);
            return ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        c.start();
        Cluster.Inbox dead = new Cluster.Inbox();
        DefaultMQPushConsumer graveyard = null;
        try {
            send(topic, "T", "m", 3);
            Cluster.await("three deliveries of each: " + times, 60_000,
                () -> times.size() == 3 && times.values().stream().allMatch(l -> l.size() >= 3));
            for (List<Integer> l : times.values()) {
                assertEquals(java.util.Arrays.asList(0, 1, 2), new ArrayList<>(l));
            }
            Thread.sleep(500);
            graveyard = into(Cluster.name("G"), "%DLQ%" + group, "*", dead);
            awaitExactly(dead, Cluster.numbered("m", 3));
        } finally {
            c.shutdown();
            if (graveyard != null) {
                graveyard.shutdown();
            }
        }
    }

    @Test
    public void delayLevel() throws Exception {
        String topic = Cluster.name("Delay");
        Cluster.createTopic(producer, topic, 1);
        Cluster.Inbox box = new Cluster.Inbox();
        DefaultMQPushConsumer c = into(Cluster.name("G"), topic, "*", box);
        try {
            Message m = new Message(topic, "T", "late".getBytes(StandardCharsets.UTF_8));
            m.setDelayTimeLevel(2);
            long sent = System.currentTimeMillis();
            producer.send(m);
            producer.send(new Message(topic, "T", "early".getBytes(StandardCharsets.UTF_8)));
            Cluster.await("both", 30_000, () -> box.size() == 2);
            List<String> bodies = Cluster.bodies(box);
            assertEquals(java.util.Arrays.asList("early", "late"), bodies);
            long took = System.currentTimeMillis() - sent;
            assertTrue("delivered after " + took, took >= 4_500 && took < 25_000);
        } finally {
            c.shutdown();
        }
    }

    @Test
    public void rebalance() throws Exception {
        String topic = Cluster.name("Join");
        String group = Cluster.name("G");
        Cluster.createTopic(producer, topic, 8);
        Cluster.Inbox a = new Cluster.Inbox();
        Cluster.Inbox b = new Cluster.Inbox();
        DefaultMQPushConsumer first = into(group, topic, "*", a);
        DefaultMQPushConsumer second = null;
        try {
            send(topic, "T", "x", 80);
            awaitExactly(a, Cluster.numbered("x", 80));
            second = into(group, topic, "*", b);
            Cluster.await("both get something", 60_000, () -> {
                send(topic, "T", "y", 16);
                return a.size() > 80 && !b.isEmpty();
            });
            Thread.sleep(1_000);
            Set<Integer> queuesOfB = new HashSet<>();
            for (MessageExt m : b) {
                queuesOfB.add(m.getQueueId());
            }
            assertTrue("second got queues " + queuesOfB, queuesOfB.size() >= 2);
            second.shutdown();
            second = null;
            Cluster.await("the first takes over", 30_000, () -> {
                int before = a.size();
                send(topic, "T", "z", 16);
                Thread.sleep(500);
                return a.size() >= before + 16;
            });
        } finally {
            first.shutdown();
            if (second != null) {
                second.shutdown();
            }
        }
    }

    @Test
    @SuppressWarnings("deprecation")
    public void pull() throws Exception {
        String topic = Cluster.name("Pull");
        Cluster.createTopic(producer, topic, 1);
        send(topic, "odd", "m", 100);
        send(topic, "even", "n", 10);
        DefaultMQPullConsumer c = new DefaultMQPullConsumer(Cluster.name("G"));
        c.setNamesrvAddr(Cluster.NAMESRV);
        c.setInstanceName(Cluster.name("pc"));
        c.start();
        try {
            MessageQueue q = c.fetchSubscribeMessageQueues(topic).iterator().next();
            List<String> got = new ArrayList<>();
            long at = 0;
            while (at < 110) {
                PullResult r = c.pull(q, "*", at, 32);
                assertEquals(PullStatus.FOUND, r.getPullStatus());
                assertEquals(0, r.getMinOffset());
                assertEquals(110, r.getMaxOffset());
                got.addAll(Cluster.bodies(r.getMsgFoundList()));
                at = r.getNextBeginOffset();
            }
            List<String> want = new ArrayList<>(Cluster.numbered("m", 100));
            want.addAll(Cluster.numbered("n", 10));
            assertEquals(want, got);
            assertEquals(PullStatus.NO_NEW_MSG, c.pull(q, "*", 110, 32).getPullStatus());
            assertEquals(PullStatus.OFFSET_ILLEGAL, c.pull(q, "*", 500, 32).getPullStatus());
            PullResult filtered = c.pull(q, "even", 0, 32);
            assertTrue(filtered.getPullStatus() == PullStatus.FOUND || filtered.getPullStatus() == PullStatus.NO_MATCHED_MSG);
            c.updateConsumeOffset(q, 42);
            c.getOffsetStore().persist(q);
            Cluster.await("the offset, sent one-way", 10_000, () -> c.fetchConsumeOffset(q, true) == 42);
        } finally {
            c.shutdown();
        }
    }

    @Test
    public void litePull() throws Exception {
        String topic = Cluster.name("Lite");
        Cluster.createTopic(producer, topic, 4);
        DefaultLitePullConsumer c = new DefaultLitePullConsumer(Cluster.name("G"));
        c.setNamesrvAddr(Cluster.NAMESRV);
        c.setInstanceName(Cluster.name("lp"));
        c.setConsumeFromWhere(org.apache.rocketmq.common.consumer.ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        c.subscribe(topic, "*");
        c.start();
        try {
            send(topic, "T", "m", 100);
            List<String> got = new ArrayList<>();
            Cluster.await("100 by lite pull", 60_000, () -> {
                got.addAll(Cluster.bodies(c.poll(200)));
                return got.size() >= 100;
            });
            assertEquals(new TreeSet<>(Cluster.numbered("m", 100)), new TreeSet<>(got));
            c.commitSync();
        } finally {
            c.shutdown();
        }
    }

    @Test
    public void offsetReset() throws Exception {
        String topic = Cluster.name("Reset");
        String group = Cluster.name("G");
        Cluster.createTopic(producer, topic, 2);
        Cluster.Inbox box = new Cluster.Inbox();
        DefaultMQPushConsumer c = into(group, topic, "*", box);
        DefaultMQAdminExt admin = new DefaultMQAdminExt();
        admin.setNamesrvAddr(Cluster.NAMESRV);
        admin.setInstanceName(Cluster.name("adm"));
        admin.start();
        try {
            send(topic, "T", "m", 30);
            awaitExactly(box, Cluster.numbered("m", 30));
            Thread.sleep(6_000); // offsets are committed every five seconds
            Map<MessageQueue, Long> reset = admin.resetOffsetByTimestamp(topic, group, 0, true);
            assertFalse(reset.isEmpty());
            Cluster.await("all again", 60_000, () -> box.size() >= 60);
        } finally {
            admin.shutdown();
            c.shutdown();
        }
    }
}
