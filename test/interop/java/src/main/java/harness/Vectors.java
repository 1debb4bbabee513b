package harness;

import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.apache.rocketmq.common.UtilAll;
import org.apache.rocketmq.common.message.MessageAccessor;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.store.index.IndexFile;

/** Prints values that the Apache classes compute, for tests that run without Java. */
final class Vectors {
    private Vectors() {
    }

    static List<String> lines() throws Exception {
        List<String> out = new ArrayList<>();
        for (String tag : new String[] {"TagA", "TagB", "*", "\u8ba2\u5355", "\ud83d\ude00", "ck", "ack", "bAck", "d", "polygenelubricants", "Aa", "BB", ""}) {
            out.add(new Json().put("kind", "tag").put("text", tag).put("hash", Line.tagsCode(tag)).line());
        }
        Path dir = Files.createTempDirectory("vectors");
        IndexFile index = new IndexFile(dir.resolve("20260101000000000").toString(), 16, 16, 0, 0);
        for (String key : new String[] {"TopicTest#Key1", "TopicTest#AC1100011234", "polygenelubricants", "TopicA#\u952e\ud83d\ude00", "T#Aa", "T#BB"}) {
            out.add(new Json().put("kind", "index").put("text", key).put("java", key.hashCode())
                .put("hash", index.indexKeyHashMethod(key)).line());
        }
        index.destroy(0);
        Files.deleteIfExists(dir);
        for (String s : new String[] {"Hello RocketMQ", "hello", "", "7-7000\n8-8000\n"}) {
            out.add(new Json().put("kind", "crc").put("text", s).put("crc", UtilAll.crc32(s.getBytes(StandardCharsets.UTF_8))).line());
        }
        MessageExt m = Line.newMessage();
        m.setTopic("TopicTest");
        m.setBody("Hello RocketMQ".getBytes(StandardCharsets.US_ASCII));
        m.setBodyCRC(UtilAll.crc32(m.getBody()));
        MessageAccessor.putProperty(m, "TAGS", "TagA");
        m.setQueueId(3);
        m.setQueueOffset(5);
        m.setCommitLogOffset(4096);
        m.setBornTimestamp(1700000000000L);
        m.setStoreTimestamp(1700000000123L);
        m.setBornHost(new InetSocketAddress(InetAddress.getByAddress(new byte[] {10, 0, 0, 1}), 54321));
        m.setStoreHost(new InetSocketAddress(InetAddress.getByAddress(new byte[] {10, 0, 0, 2}), 10911));
        byte[] record = MessageDecoder.encode(m, false);
        out.add(new Json().put("kind", "record").put("hex", UtilAll.bytes2string(record)).put("crc", UtilAll.crc32(record)).line());
        MessageExt d = MessageDecoder.decode(ByteBuffer.wrap(record), true, false);
        out.add(new Json().put("kind", "id").put("text", d.getMsgId()).line());
        Line.vectors(out);
        return out;
    }
}
