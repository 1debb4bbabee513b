package harness;

import java.util.List;
import java.util.Map;
import org.apache.rocketmq.common.BrokerConfig;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageExtBatch;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.MessageExtBrokerInner;
import org.apache.rocketmq.store.PutMessageResult;
import org.apache.rocketmq.store.config.MessageStoreConfig;
import org.apache.rocketmq.store.stats.BrokerStatsManager;

/** What differs between the release lines: this is 4.9. The store itself moves delay messages. */
final class Line {
    static final String NAME = "4.9";
    static final boolean DELAYS_BY_STORE = true;

    private Line() {
    }

    static DefaultMessageStore newStore(MessageStoreConfig config) throws Exception {
        return new DefaultMessageStore(config, new BrokerStatsManager("harness", false),
            (topic, queue, offset, tags, time, bitmap, properties) -> { }, new BrokerConfig());
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

    /**
     * Ends the delivery of delay messages before its first round. After an unclean stop this line
     * rebuilds the delay queues before it has read the levels, so that they hold tag hashes where
     * delivery times belong, and it would deliver such messages at once, in the middle of a dump.
     */
    static void started(DefaultMessageStore store) {
        store.getScheduleMessageService().shutdown();
    }

    static void options(MessageStoreConfig config, Map<String, String> options) {
    }

    static void vectors(List<String> out) {
    }
}
