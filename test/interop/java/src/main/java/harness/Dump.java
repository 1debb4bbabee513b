package harness;

import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.zip.CRC32;
import org.apache.rocketmq.common.UtilAll;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.GetMessageResult;
import org.apache.rocketmq.store.GetMessageStatus;
import org.apache.rocketmq.store.QueryMessageResult;

/** Reads a store through its public methods and prints everything it says. */
final class Dump {
    private final DefaultMessageStore store;
    private final PrintStream out;
    private final TreeMap<String, TreeSet<String>> keys = new TreeMap<>();
    private long firstTime = Long.MAX_VALUE;
    private long lastTime;

    Dump(DefaultMessageStore store, PrintStream out) {
        this.store = store;
        this.out = out;
    }

    void run() throws Exception {
        out.println(new Json().put("op", "log").put("line", Line.NAME)
            .put("min", store.getMinPhyOffset()).put("max", store.getMaxPhyOffset()).line());
        for (String topic : new TreeSet<>(store.getConsumeQueueTable().keySet())) {
            for (Integer queue : new TreeSet<>(((Map<Integer, ?>) store.getConsumeQueueTable().get(topic)).keySet())) {
                queue(topic, queue);
            }
        }
        for (Map.Entry<String, TreeSet<String>> e : keys.entrySet()) {
            for (String key : e.getValue()) {
                query(e.getKey(), key, 64, 0, Long.MAX_VALUE);
            }
            long third = (lastTime - firstTime) / 3;
            query(e.getKey(), "Key0", 3, 0, Long.MAX_VALUE);
            query(e.getKey(), "Key0", 64, firstTime + third, lastTime - third);
            query(e.getKey(), "no such key", 64, 0, Long.MAX_VALUE);
        }
        out.println(new Json().put("op", "end").line());
    }

    private void queue(String topic, int queue) throws Exception {
        long min = store.getMinOffsetInQueue(topic, queue);
        long max = store.getMaxOffsetInQueue(topic, queue);
        out.println(new Json().put("op", "queue").put("topic", topic).put("queue", queue).put("min", min).put("max", max).line());
        TreeSet<Long> times = new TreeSet<>();
        for (long next = min; next < max; ) {
            GetMessageResult r = store.getMessage("harness", topic, queue, next, 32, null);
            try {
                if (r.getStatus() != GetMessageStatus.FOUND) {
                    throw new IllegalStateException(topic + "/" + queue + " at " + next + " of " + min + ".." + max + ": " + r);
                }
                for (ByteBuffer b : r.getMessageBufferList()) {
                    times.add(record(topic, queue, next++, b));
                }
                if (r.getNextBeginOffset() != next) {
                    throw new IllegalStateException(topic + "/" + queue + " says next " + r.getNextBeginOffset() + ", read to " + next);
                }
            } finally {
                r.release();
            }
        }
        if (times.isEmpty()) {
            return;
        }
        TreeSet<Long> asked = new TreeSet<>();
        for (Long t : times) {
            asked.add(t);
            asked.add(t - 1);
            asked.add(t + 1);
        }
        asked.add(0L);
        asked.add(times.last() + 100000);
        List<Long> ts = new ArrayList<>(asked);
        List<Long> offsets = new ArrayList<>();
        for (Long t : ts) {
            offsets.add(store.getOffsetInQueueByTime(topic, queue, t));
        }
        out.println(new Json().put("op", "time").put("topic", topic).put("queue", queue).put("times", ts).put("offs", offsets).line());
    }

    private long record(String topic, int queue, long offset, ByteBuffer buffer) throws Exception {
        byte[] bytes = bytes(buffer.slice());
        CRC32 crc = new CRC32();
        crc.update(bytes);
        MessageExt m = MessageDecoder.decode(ByteBuffer.wrap(bytes), true, false);
        if (m == null) {
            throw new IllegalStateException(topic + "/" + queue + "/" + offset + " does not decode");
        }
        if (!m.getTopic().equals(topic) || m.getQueueId() != queue || m.getQueueOffset() != offset) {
            throw new IllegalStateException("entry " + topic + "/" + queue + "/" + offset + " leads to " + m);
        }
        firstTime = Math.min(firstTime, m.getStoreTimestamp());
        lastTime = Math.max(lastTime, m.getStoreTimestamp());
        TreeSet<String> set = keys.computeIfAbsent(topic, t -> new TreeSet<>());
        String uniq = m.getProperty("UNIQ_KEY");
        if (uniq != null) {
            set.add(uniq);
        }
        String list = m.getKeys();
        if (list != null) {
            for (String k : list.split(" ")) {
                if (!k.isEmpty()) {
                    set.add(k);
                }
            }
        }
        out.println(new Json().put("op", "rec").put("topic", topic).put("queue", queue).put("off", offset)
            .put("pos", m.getCommitLogOffset()).put("size", bytes.length).put("crc", crc.getValue())
            .put("store", m.getStoreTimestamp()).put("id", m.getMsgId()).put("keys", list == null ? "" : list)
            .put("uniq", uniq == null ? "" : uniq).put("tags", m.getTags() == null ? "" : m.getTags()).line());
        return m.getStoreTimestamp();
    }

    private static byte[] bytes(ByteBuffer buffer) {
        byte[] b = new byte[buffer.remaining()];
        buffer.get(b);
        return b;
    }

    private void query(String topic, String key, int max, long begin, long end) {
        QueryMessageResult r = store.queryMessage(topic, key, max, begin, end);
        List<Long> positions = new ArrayList<>();
        try {
            for (ByteBuffer b : r.getMessageBufferList()) {
                MessageExt m = MessageDecoder.decode(b.slice(), true, false);
                if (m == null) {
                    throw new IllegalStateException("key " + topic + "#" + key + " leads to no record: "
                        + UtilAll.bytes2string(bytes(b.slice())) + ", found before it " + positions);
                }
                positions.add(m.getCommitLogOffset());
            }
        } finally {
            r.release();
        }
        out.println(new Json().put("op", "key").put("topic", topic).put("key", key).put("n", max)
            .put("begin", begin).put("end", end).put("pos", positions).line());
    }
}
