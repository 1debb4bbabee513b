package harness;

import java.io.File;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.common.BrokerConfig;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageExtBatch;
import org.apache.rocketmq.common.message.MessageExtBrokerInner;
import org.apache.rocketmq.common.utils.CheckpointFile;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.PutMessageResult;
import org.apache.rocketmq.store.config.MessageStoreConfig;
import org.apache.rocketmq.store.stats.BrokerStatsManager;

/** What differs between the release lines: this is 5.3. Delay messages are moved by the caller. */
final class Line {
    static final String NAME = "5.3";
    static final boolean DELAYS_BY_STORE = false;

    private Line() {
    }

    static DefaultMessageStore newStore(MessageStoreConfig config) throws Exception {
        return new DefaultMessageStore(config, new BrokerStatsManager("harness", false),
            (topic, queue, offset, tags, time, bitmap, properties) -> { }, new BrokerConfig(), new ConcurrentHashMap<>());
    }

    static MessageExt newMessage() {
        return new MessageExtBrokerInner();
    }

    static PutMessageResult put(DefaultMessageStore store, MessageExt m, String properties, long tagsCode) {
        MessageExtBrokerInner inner = (MessageExtBrokerInner) m;
        inner.setPropertiesString(properties);
        inner.setTagsCode(tagsCode);
        return store.putMessage(inner);
    }

    static PutMessageResult putBatch(DefaultMessageStore store, MessageExtBatch batch) {
        return store.putMessages(batch);
    }

    static long tagsCode(String tags) {
        return MessageExtBrokerInner.tagsString2tagsCode(tags);
    }

    static void started(DefaultMessageStore store) {
    }

    static void options(MessageStoreConfig config, Map<String, String> options) {
        config.setEnabledAppendPropCRC(Boolean.parseBoolean(options.getOrDefault("propcrc", "false")));
        config.setForceVerifyPropCRC(config.isEnabledAppendPropCRC());
        config.setTimerWheelEnable(false);
        config.setEnableCompaction(false);
    }

    /** Values that only this line can compute: the CRC property and the checkpoint text file. */
    static void vectors(List<String> out) throws Exception {
        for (int crc : new int[] {240436939, 907060870, 0, Integer.MAX_VALUE}) {
            ByteBuffer b = ByteBuffer.allocate(20);
            MessageDecoder.createCrc32(b, crc);
            out.add(new Json().put("kind", "crcProperty").put("crc", crc)
                .put("text", new String(b.array(), 0, b.position(), StandardCharsets.ISO_8859_1)).line());
        }
        File f = File.createTempFile("checkpoint", ".txt");
        CheckpointFile<String> file = new CheckpointFile<>(f.getPath(), new CheckpointFile.CheckpointSerializer<String>() {
            @Override
            public String toLine(String entry) {
                return entry;
            }

            @Override
            public String fromLine(String line) {
                return line;
            }
        });
        file.write(Arrays.asList("7-7000", "8-8000"));
        out.add(new Json().put("kind", "checkpointFile")
            .put("text", new String(Files.readAllBytes(f.toPath()), StandardCharsets.UTF_8)).line());
        Files.delete(f.toPath());
    }
}
