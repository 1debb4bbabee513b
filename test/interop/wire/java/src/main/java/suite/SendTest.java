package suite;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.junit.AfterClass;
import org.junit.BeforeClass;
import org.junit.Test;

/** Every way to send, and that what is stored is what was sent. */
public class SendTest {
    private static DefaultMQProducer producer;

    @BeforeClass
    public static void start() throws Exception {
        producer = Cluster.producer();
    }

    @AfterClass
    public static void stop() {
        producer.shutdown();
    }

    private static byte[] utf8(String s) {
        return s.getBytes(StandardCharsets.UTF_8);
    }

    /** Reads a message back by the id that the broker gave. */
    private static MessageExt view(SendResult r) throws Exception {
        assertEquals(SendStatus.SEND_OK, r.getSendStatus());
        MessageExt m = producer.viewMessage(r.getMessageQueue().getTopic(), r.getOffsetMsgId());
        assertNotNull(m);
        return m;
    }

    @Test
    public void sync() throws Exception {
        String topic = Cluster.name("Sync");
        Map<MessageQueue, Long> next = new HashMap<>();
        for (int i = 0; i < 40; i++) {
            SendResult r = producer.send(new Message(topic, "TagA", "key" + i, utf8("hello " + i)));
            assertEquals(SendStatus.SEND_OK, r.getSendStatus());
            assertEquals(topic, r.getMessageQueue().getTopic());
            long want = next.getOrDefault(r.getMessageQueue(), 0L);
            assertEquals(want, r.getQueueOffset());
            next.put(r.getMessageQueue(), want + 1);
            assertEquals(32, r.getOffsetMsgId().length());
        }
        assertTrue("several queues are used: " + next, next.size() > 1);
    }

    @Test
    public void everythingComesBack() throws Exception {
        String topic = Cluster.name("Fields");
        Message m = new Message(topic, "TagÄ", "k1 k2", utf8("grüße 世界 \u0001\u0002"));
        m.setFlag(77);
        m.putUserProperty("größe", "zwölf €");
        SendResult r = producer.send(m);
        MessageExt got = view(r);
        assertArrayEquals(m.getBody(), got.getBody());
        assertEquals("TagÄ", got.getTags());
        assertEquals("k1 k2", got.getKeys());
        assertEquals(77, got.getFlag());
        assertEquals("zwölf €", got.getUserProperty("größe"));
        assertEquals(r.getMsgId(), got.getMsgId());
        assertEquals(r.getQueueOffset(), got.getQueueOffset());
        assertTrue(Math.abs(System.currentTimeMillis() - got.getStoreTimestamp()) < 60_000);
        assertNotNull(got.getBornHost());
    }

    @Test
    public void largeAndCompressed() throws Exception {
        String topic = Cluster.name("Large");
        byte[] random = new byte[3_900_000];
        new Random(1).nextBytes(random);
        assertArrayEquals(random, view(producer.send(new Message(topic, random))).getBody());
        byte[] text = new byte[100_000];
        java.util.Arrays.fill(text, (byte) 'x');
        assertArrayEquals(text, view(producer.send(new Message(topic, text))).getBody());
        byte[] justBelow = new byte[4095];
        assertArrayEquals(justBelow, view(producer.send(new Message(topic, justBelow))).getBody());
        assertEquals(1, view(producer.send(new Message(topic, new byte[] {7}))).getBody().length);
    }

    @Test
    public void tooLargeIsRefusedByTheBroker() throws Exception {
        DefaultMQProducer p = Cluster.producer();
        try {
            p.setMaxMessageSize(10 << 20);
            byte[] random = new byte[5_000_000];
            new Random(2).nextBytes(random);
            p.send(new Message(Cluster.name("Huge"), random));
            fail("5 MB were taken");
        } catch (MQBrokerException e) {
            assertEquals(13, e.getResponseCode());
        } finally {
            p.shutdown();
        }
    }

    @Test
    public void illegalTopicAndUnknownGroup() throws Exception {
        try {
            producer.send(new Message("%RETRY%" + Cluster.name("nobody") + "é", utf8("x")));
            fail("an illegal name was taken");
        } catch (MQClientException | MQBrokerException expected) {
            assertNotNull(expected.getMessage());
        }
    }

    @Test
    public void async() throws Exception {
        String topic = Cluster.name("Async");
        producer.send(new Message(topic, utf8("first")));
        int n = 500;
        CountDownLatch left = new CountDownLatch(n);
        Set<String> ids = ConcurrentHashMap.newKeySet();
        AtomicReference<Throwable> failure = new AtomicReference<>();
        for (int i = 0; i < n; i++) {
            producer.send(new Message(topic, utf8("m" + i)), new SendCallback() {
                @Override
                public void onSuccess(SendResult r) {
                    ids.add(r.getMessageQueue().getQueueId() + "/" + r.getQueueOffset());
                    left.countDown();
                }

                @Override
                public void onException(Throwable e) {
                    failure.set(e);
                    left.countDown();
                }
            });
        }
        assertTrue(left.await(30, TimeUnit.SECONDS));
        if (failure.get() != null) {
            throw new AssertionError(failure.get());
        }
        assertEquals(n, ids.size());
    }

    @Test
    public void oneway() throws Exception {
        String topic = Cluster.name("Oneway");
        Cluster.createTopic(producer, topic, 1);
        Thread.sleep(200);
        MessageQueue q = producer.fetchPublishMessageQueues(topic).get(0);
        for (int i = 0; i < 20; i++) {
            producer.sendOneway(new Message(topic, utf8("m" + i)), q);
        }
        Cluster.await("20 one-way messages", 10_000, () -> producer.maxOffset(q) == 20);
    }

    @Test
    public void batch() throws Exception {
        String topic = Cluster.name("Batch");
        List<Message> batch = new ArrayList<>();
        for (int i = 0; i < 50; i++) {
            Message m = new Message(topic, "T" + (i % 3), "bk" + i, utf8("item " + i));
            batch.add(m);
        }
        SendResult r = producer.send(batch);
        assertEquals(SendStatus.SEND_OK, r.getSendStatus());
        String[] ids = r.getOffsetMsgId().split(",");
        assertEquals(50, ids.length);
        for (int i = 0; i < 50; i++) {
            MessageExt m = producer.viewMessage(topic, ids[i]);
            assertEquals("item " + i, new String(m.getBody(), StandardCharsets.UTF_8));
            assertEquals("T" + (i % 3), m.getTags());
            assertEquals(r.getQueueOffset() + i, m.getQueueOffset());
        }
    }

    @Test
    public void selector() throws Exception {
        String topic = Cluster.name("Select");
        Set<Integer> queues = new HashSet<>();
        for (int i = 0; i < 40; i++) {
            int order = i % 4;
            SendResult r = producer.send(new Message(topic, utf8("o" + i)),
                (qs, msg, arg) -> qs.get((Integer) arg % qs.size()), order);
            if (order == 1) {
                queues.add(r.getMessageQueue().getQueueId());
            }
        }
        assertEquals(1, queues.size());
    }

    @Test
    public void queries() throws Exception {
        String topic = Cluster.name("Query");
        long begin = System.currentTimeMillis() - 60_000;
        SendResult first = producer.send(new Message(topic, "T", "orderA", utf8("a1")));
        producer.send(new Message(topic, "T", "orderB", utf8("b1")));
        producer.send(new Message(topic, "T", "orderA orderC", utf8("a2")));
        Cluster.await("both messages of orderA", 20_000, () -> {
            try {
                return Cluster.bodies(producer.queryMessage(topic, "orderA", 32, begin, System.currentTimeMillis() + 60_000)
                    .getMessageList()).size() == 2;
            } catch (MQClientException e) {
                return false;
            }
        });
        MessageExt byUnique = producer.viewMessage(topic, first.getMsgId());
        assertEquals("a1", new String(byUnique.getBody(), StandardCharsets.UTF_8));
        MessageQueue q = first.getMessageQueue();
        assertEquals(0, producer.minOffset(q));
        assertTrue(producer.maxOffset(q) >= 1);
        assertEquals(0, producer.searchOffset(q, begin));
        assertTrue(producer.earliestMsgStoreTime(q) > begin);
        try {
            producer.queryMessage(topic, "nobody", 32, begin, System.currentTimeMillis());
            fail("an unknown key was found");
        } catch (MQClientException expected) {
            assertNotNull(expected.getMessage());
        }
    }
}
