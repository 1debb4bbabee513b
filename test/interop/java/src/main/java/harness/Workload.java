package harness;

import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageExtBatch;
import org.apache.rocketmq.store.AppendMessageResult;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.PutMessageResult;

/**
 * Puts a seeded mix of messages into a store: sizes from one byte to a third of a file, no, one and many
 * keys, tags beyond ASCII, both address families, batches, delay levels, transaction bits, long topics.
 * Everything but the store times follows from the seed.
 */
final class Workload {
    private static final String[] TAGS = {null, "TagA", "TagB", "\u8ba2\u5355", "\ud83d\ude00", "polygenelubricants"};

    private final DefaultMessageStore store;
    private final Random random;
    private final int topics;
    private final int queues;
    private final int body;
    private final boolean v2;
    private final InetSocketAddress store4;
    private final InetSocketAddress store6;
    private final InetSocketAddress born4;
    private final InetSocketAddress born6;
    private int n;

    Workload(DefaultMessageStore store, Map<String, String> options) throws Exception {
        this.store = store;
        this.random = new Random(Long.parseLong(options.getOrDefault("seed", "1")));
        this.topics = Integer.parseInt(options.getOrDefault("topics", "5"));
        this.queues = Integer.parseInt(options.getOrDefault("queues", "4"));
        this.body = Integer.parseInt(options.getOrDefault("body", "300"));
        this.v2 = Boolean.parseBoolean(options.getOrDefault("v2", "false"));
        store4 = new InetSocketAddress(InetAddress.getByAddress(new byte[] {10, 0, 0, 2}), 10911);
        born4 = new InetSocketAddress(InetAddress.getByAddress(new byte[] {10, 0, 0, 1}), 54321);
        store6 = new InetSocketAddress(InetAddress.getByName("2001:db8::2"), 10911);
        born6 = new InetSocketAddress(InetAddress.getByName("2001:db8::1"), 54321);
    }

    /** Puts one message or one batch and returns a line per stored record. */
    List<String> next() throws Exception {
        n++;
        int dice = random.nextInt(100);
        if (dice < 6) {
            return batch(2 + random.nextInt(5));
        }
        MessageExt m = Line.newMessage();
        fill(m);
        m.setTopic(topic(dice));
        String tags = TAGS[random.nextInt(TAGS.length)];
        if (tags != null) {
            MessageAccessor.putProperty(m, "TAGS", tags);
        }
        keys(m);
        byte[] bytes = bytes(dice == 50 ? 20 * body : 1 + random.nextInt(2 * body));
        m.setBody(bytes);
        m.setFlag(random.nextInt());
        if (dice >= 90 && dice < 94) {
            delay(m, 14 + random.nextInt(5)); // ten minutes and more: not delivered while this runs
        } else if (dice == 94) {
            m.setSysFlag(m.getSysFlag() | 0x4); // prepared: no queue entry, indexed
        } else if (dice == 95) {
            m.setSysFlag(m.getSysFlag() | 0x8); // commit
            m.setPreparedTransactionOffset(random.nextInt(1 << 20));
        } else if (dice == 96) {
            m.setSysFlag(m.getSysFlag() | 0xc); // rollback: neither
            m.setPreparedTransactionOffset(random.nextInt(1 << 20));
        }
        String properties = MessageDecoder.messageProperties2String(m.getProperties());
        PutMessageResult r = Line.put(store, m, properties, tags == null ? 0 : Line.tagsCode(tags));
        List<String> lines = new ArrayList<>();
        AppendMessageResult a = check(r);
        lines.add(new Json().put("op", "put").put("topic", m.getTopic()).put("queue", m.getQueueId())
            .put("off", a.getLogicsOffset()).put("pos", a.getWroteOffset()).put("size", a.getWroteBytes())
            .put("store", a.getStoreTimestamp()).put("id", a.getMsgId())
            .put("noentry", dice == 94 || dice == 96 ? 1 : 0).line());
        return lines;
    }

    private List<String> batch(int count) throws Exception {
        List<Message> items = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            Message item = new Message("unused", bytes(1 + random.nextInt(body)));
            item.setFlag(random.nextInt());
            keys(item);
            MessageAccessor.putProperty(item, "TAGS", TAGS[1 + random.nextInt(TAGS.length - 1)]);
            items.add(item);
        }
        MessageExtBatch b = new MessageExtBatch();
        fill(b);
        b.setTopic(topic(0));
        MessageAccessor.putProperty(b, "CLUSTER", "harness");
        b.setBody(MessageDecoder.encodeMessages(items));
        PutMessageResult r = Line.putBatch(store, b);
        AppendMessageResult a = check(r);
        String[] ids = a.getMsgId().split(",");
        if (ids.length != count) {
            throw new IllegalStateException("a batch of " + count + " gave ids " + a.getMsgId());
        }
        List<String> lines = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            String id = ids[i];
            lines.add(new Json().put("op", "put").put("topic", b.getTopic()).put("queue", b.getQueueId())
                .put("off", a.getLogicsOffset() + i).put("pos", Long.parseUnsignedLong(id.substring(id.length() - 16), 16))
                .put("size", 0).put("store", a.getStoreTimestamp()).put("id", id).put("noentry", 0).line());
        }
        return lines;
    }

    private AppendMessageResult check(PutMessageResult r) {
        if (!r.isOk()) {
            throw new IllegalStateException("put " + n + ": " + r);
        }
        return r.getAppendMessageResult();
    }

    private void fill(MessageExt m) {
        MessageAccessor.setProperties(m, new HashMap<>()); // 5.x asks the map before it looks whether there is one
        m.setQueueId(random.nextInt(queues));
        m.setBornTimestamp(1700000000000L + n);
        m.setBornHost(random.nextInt(8) == 0 ? born6 : born4);
        m.setStoreHost(random.nextInt(8) == 0 ? store6 : store4);
        m.setReconsumeTimes(random.nextInt(3));
    }

    private String topic(int dice) {
        if (v2 && dice == 97) {
            StringBuilder b = new StringBuilder("%RETRY%");
            while (b.length() < 200) {
                b.append("long");
            }
            return b.toString();
        }
        return "Topic" + (char) ('A' + random.nextInt(topics));
    }

    /** Key0 is frequent, Aa and BB share a hash, the rest is rare. */
    private void keys(Message m) {
        StringBuilder b = new StringBuilder();
        for (int i = random.nextInt(4); i > 0; i--) {
            int k = random.nextInt(10);
            String key = k < 2 ? "Key0" : k == 2 ? "Aa" : k == 3 ? "BB" : k == 4 ? "\u952e\ud83d\ude00" : "k" + random.nextInt(100000);
            b.append(key).append(i > 1 ? " " : "");
        }
        if (b.length() > 0) {
            MessageAccessor.putProperty(m, "KEYS", b.toString());
        }
        if (random.nextBoolean()) {
            MessageAccessor.putProperty(m, "UNIQ_KEY", String.format("%08X%024X", n, random.nextLong()));
        }
        if (random.nextInt(10) == 0) {
            MessageAccessor.putProperty(m, "a", "\u00e9\u4e2d\ud83d\ude00 = value");
        }
    }

    /** Text that compresses a little, so that directories kept as samples stay small. */
    private byte[] bytes(int size) {
        StringBuilder b = new StringBuilder(size + 20);
        while (b.length() < size) {
            b.append("m").append(n).append('-').append(Integer.toString(random.nextInt(1 << 20), 36)).append(' ');
        }
        return b.substring(0, size).getBytes(StandardCharsets.US_ASCII);
    }

    private void delay(MessageExt m, int level) {
        MessageAccessor.putProperty(m, "DELAY", Integer.toString(level));
        if (!Line.DELAYS_BY_STORE) {
            MessageAccessor.putProperty(m, "REAL_TOPIC", m.getTopic());
            MessageAccessor.putProperty(m, "REAL_QID", Integer.toString(m.getQueueId()));
            m.setTopic("SCHEDULE_TOPIC_XXXX");
            m.setQueueId(level - 1);
        }
    }
}
