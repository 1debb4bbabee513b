package frames;

import java.io.PrintWriter;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.RemotingSerializable;
import org.apache.rocketmq.remoting.protocol.SerializeType;

/** What the real classes make of one representative of every kind. */
final class Samples {
    private static final long BORN = 1700000000123L;

    private final PrintWriter out;
    private final boolean five = Make.has("RequestHeaderRegistry") || Make.has("header.PopMessageRequestHeader");

    Samples(PrintWriter out) {
        this.out = out;
    }

    void all() throws Exception {
        sends();
        pulls();
        groups();
        registrations();
        answers();
        tables();
        stats();
        running();
        headers();
    }

    /** Every header class with its members: name, type, and a ! where the header cannot do without. */
    private void headers() throws Exception {
        TreeMap<String, List<String>> all = new TreeMap<>();
        Class<?> known = Make.type("header.PullMessageRequestHeader");
        java.net.URI jar = known.getProtectionDomain().getCodeSource().getLocation().toURI();
        try (java.util.jar.JarFile f = new java.util.jar.JarFile(new java.io.File(jar))) {
            for (java.util.jar.JarEntry e : Collections.list(f.entries())) {
                String name = e.getName();
                if (!name.startsWith(known.getPackage().getName().replace('.', '/')) || !name.endsWith("Header.class")) {
                    continue;
                }
                Class<?> c = Class.forName(name.substring(0, name.length() - ".class".length()).replace('/', '.'));
                List<String> members = new ArrayList<>();
                for (Class<?> k = c; k != Object.class && k != null; k = k.getSuperclass()) {
                    for (java.lang.reflect.Field m : k.getDeclaredFields()) {
                        if (!java.lang.reflect.Modifier.isStatic(m.getModifiers())) {
                            boolean required = m.isAnnotationPresent(org.apache.rocketmq.remoting.annotation.CFNotNull.class);
                            members.add(m.getName() + " " + m.getType().getSimpleName().toLowerCase() + (required ? " !" : ""));
                        }
                    }
                }
                Collections.sort(members);
                all.put(c.getSimpleName(), members);
            }
        }
        body("headers", all);
    }

    private void command(String name, RemotingCommand c, byte[] body) throws Exception {
        c.setBody(body);
        c.setOpaque(20001);
        for (SerializeType t : SerializeType.values()) {
            // A header is moved to the ext fields when it is encoded; the same map serves both forms.
            c.setSerializeTypeCurrentRPC(t);
            ByteBuffer b = c.encode();
            byte[] frame = new byte[b.remaining()];
            b.get(frame);
            out.println("{\"name\":" + Main.quote(name + "/" + t) + ",\"class\":\"RemotingCommand\",\"frame\":\"" + Main.hex(frame) + "\"}");
        }
    }

    private void body(String name, Object o) throws Exception {
        byte[] b = o instanceof RemotingSerializable ? ((RemotingSerializable) o).encode() : RemotingSerializable.encode(o);
        out.println("{\"name\":" + Main.quote(name) + ",\"class\":" + Main.quote(o.getClass().getName()) + ",\"body\":"
            + Main.quote(new String(b, StandardCharsets.UTF_8)) + "}");
    }

    private static Object sendHeader(String topic, boolean batch) throws Exception {
        return Make.of("header.SendMessageRequestHeader", "producerGroup", "PG", "topic", topic, "defaultTopic", "TBW102",
            "defaultTopicQueueNums", 4, "queueId", 3, "sysFlag", 1, "bornTimestamp", BORN, "flag", -7,
            "properties", "KEYS\u0001k1 k2\u0002UNIQ_KEY\u00010A0000010000000000000000000000FF\u0002TAGS\u0001订单\u0002",
            "reconsumeTimes", 2, "unitMode", true, "maxReconsumeTimes", 16, "batch", batch);
    }

    private void sends() throws Exception {
        byte[] text = "hello, 世界".getBytes(StandardCharsets.UTF_8);
        command("SEND_MESSAGE", Make.request("SEND_MESSAGE", sendHeader("TopicTest", false)), text);
        Class<?> v2 = Make.type("header.SendMessageRequestHeaderV2");
        command("SEND_MESSAGE_V2", Make.request("SEND_MESSAGE_V2",
            Make.call(v2, "createSendMessageRequestHeaderV2", sendHeader("TopicTest", false))), text);
        List<Message> batch = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            Message m = new Message("TopicTest", "TagA", "key" + i, ("body " + i).getBytes(StandardCharsets.UTF_8));
            m.setFlag(i);
            batch.add(m);
        }
        command("SEND_BATCH_MESSAGE", Make.request("SEND_BATCH_MESSAGE",
            Make.call(v2, "createSendMessageRequestHeaderV2", sendHeader("TopicTest", true))), MessageDecoder.encodeMessages(batch));
        command("SEND_REPLY_MESSAGE_V2", Make.request("SEND_REPLY_MESSAGE_V2",
            Make.call(v2, "createSendMessageRequestHeaderV2", sendHeader("DefaultCluster_REPLY_TOPIC", false))), text);
        command("SEND_MESSAGE empty properties", Make.request("SEND_MESSAGE",
            Make.fill(sendHeader("T", false), "properties", "", "maxReconsumeTimes", null)), null);
        command("CONSUMER_SEND_MSG_BACK", Make.request("CONSUMER_SEND_MSG_BACK", Make.of("header.ConsumerSendMsgBackRequestHeader",
            "offset", 123456789012L, "group", "CG", "delayLevel", 3, "originMsgId", "0A00000100002A9F0000000000001234",
            "originTopic", "TopicTest", "unitMode", false, "maxReconsumeTimes", 16)), null);
        RemotingCommand end = Make.request("END_TRANSACTION", Make.of("header.EndTransactionRequestHeader", "producerGroup", "PG",
            "tranStateTableOffset", 7L, "commitLogOffset", 123L, "commitOrRollback", 8, "fromTransactionCheck", false,
            "msgId", "0A0000010000000000000000000000FF", "transactionId", "tx", "?topic", "TopicTest"));
        end.markOnewayRPC();
        command("END_TRANSACTION one-way", end, null);
    }

    private void pulls() throws Exception {
        Object h = Make.of("header.PullMessageRequestHeader", "consumerGroup", "CG", "topic", "TopicTest", "queueId", 5,
            "queueOffset", 1234567890123L, "maxMsgNums", 32, "sysFlag", 7, "commitOffset", 1234567890000L,
            "suspendTimeoutMillis", 15000L, "subscription", "TagA || TagB", "subVersion", BORN, "expressionType", "TAG", "?maxMsgBytes", 262144,
            "?requestSource", -1);
        command("PULL_MESSAGE", Make.request("PULL_MESSAGE", h), null);
        if (five) {
            command("LITE_PULL_MESSAGE", Make.request("LITE_PULL_MESSAGE", h), null);
        }
        command("QUERY_CONSUMER_OFFSET", Make.request("QUERY_CONSUMER_OFFSET", Make.of("header.QueryConsumerOffsetRequestHeader",
            "consumerGroup", "CG", "topic", "TopicTest", "queueId", 5, "?setZeroIfNotFound", false)), null);
        RemotingCommand update = Make.request("UPDATE_CONSUMER_OFFSET", Make.of("header.UpdateConsumerOffsetRequestHeader",
            "consumerGroup", "CG", "topic", "TopicTest", "queueId", 5, "commitOffset", 99L));
        update.markOnewayRPC();
        command("UPDATE_CONSUMER_OFFSET one-way", update, null);
        command("GET_MAX_OFFSET", Make.request("GET_MAX_OFFSET", Make.of("header.GetMaxOffsetRequestHeader", "topic", "TopicTest", "queueId", 5)), null);
        command("SEARCH_OFFSET_BY_TIMESTAMP", Make.request("SEARCH_OFFSET_BY_TIMESTAMP", Make.of("header.SearchOffsetRequestHeader",
            "topic", "TopicTest", "queueId", 5, "timestamp", BORN)), null);
        command("QUERY_MESSAGE", Make.request("QUERY_MESSAGE", Make.of("header.QueryMessageRequestHeader", "topic", "TopicTest", "key", "k1",
            "maxNum", 32, "beginTimestamp", 0L, "endTimestamp", Long.MAX_VALUE)), null);
        command("VIEW_MESSAGE_BY_ID", Make.request("VIEW_MESSAGE_BY_ID", Make.of("header.ViewMessageRequestHeader", "offset", 4660L)), null);
    }

    private static Object subscription() throws Exception {
        return Make.of("heartbeat.SubscriptionData", "topic", "TopicTest", "subString", "TagA", "tagsSet", new HashSet<>(Arrays.asList("TagA")),
            "codeSet", new HashSet<>(Arrays.asList("TagA".hashCode())), "subVersion", BORN);
    }

    private void groups() throws Exception {
        Object consumer = Make.of("heartbeat.ConsumerData", "groupName", "CG", "consumeType", "CONSUME_PASSIVELY", "messageModel", "CLUSTERING",
            "consumeFromWhere", "CONSUME_FROM_LAST_OFFSET", "subscriptionDataSet", new HashSet<>(Arrays.asList(subscription())), "unitMode", false);
        Object producer = Make.of("heartbeat.ProducerData", "groupName", "PG");
        Object beat = Make.of("heartbeat.HeartbeatData", "clientID", "10.0.0.1@4242#1", "producerDataSet", new HashSet<>(Arrays.asList(producer)),
            "consumerDataSet", new HashSet<>(Arrays.asList(consumer)));
        body("HeartbeatData", beat);
        command("HEART_BEAT", Make.request("HEART_BEAT", null), ((RemotingSerializable) beat).encode());
        command("UNREGISTER_CLIENT", Make.request("UNREGISTER_CLIENT", Make.of("header.UnregisterClientRequestHeader", "clientID", "10.0.0.1@4242#1",
            "consumerGroup", "CG")), null);
        command("GET_CONSUMER_LIST_BY_GROUP", Make.request("GET_CONSUMER_LIST_BY_GROUP",
            Make.of("header.GetConsumerListByGroupRequestHeader", "consumerGroup", "CG")), null);
        Set<MessageQueue> one = new HashSet<>(Arrays.asList(new MessageQueue("TopicTest", "broker-a", 3)));
        body("LockBatchRequestBody", Make.of("body.LockBatchRequestBody", "consumerGroup", "CG", "clientId", "c@1", "mqSet", one));
        body("LockBatchResponseBody", Make.of("body.LockBatchResponseBody", "lockOKMQSet", one));
        body("CheckClientRequestBody", Make.of("body.CheckClientRequestBody", "clientId", "c@1", "group", "CG", "subscriptionData", subscription()));
        body("GetConsumerListByGroupResponseBody", Make.of("header.GetConsumerListByGroupResponseBody", "consumerIdList", Arrays.asList("a@1", "b@2")));
        Object connection = Make.of("body.Connection", "clientId", "c@1", "clientAddr", "10.0.0.1:5555", "language", "GO", "version", 317);
        body("ProducerConnection", Make.of("body.ProducerConnection", "connectionSet", new HashSet<>(Arrays.asList(connection))));
        ConcurrentHashMap<String, Object> subs = new ConcurrentHashMap<>();
        subs.put("TopicTest", subscription());
        body("ConsumerConnection", Make.of("body.ConsumerConnection", "connectionSet", new HashSet<>(Arrays.asList(connection)), "subscriptionTable", subs,
            "consumeType", "CONSUME_PASSIVELY", "messageModel", "CLUSTERING", "consumeFromWhere", "CONSUME_FROM_LAST_OFFSET"));
        body("GroupList", Make.of("body.GroupList", "groupList", new HashSet<>(Arrays.asList("CG"))));
        if (Make.has("body.QuerySubscriptionResponseBody")) {
            body("QuerySubscriptionResponseBody", Make.of("body.QuerySubscriptionResponseBody", "group", "CG", "topic", "TopicTest", "subscriptionData", subscription()));
        }
    }

    private static TopicConfig topic(String name) {
        return new TopicConfig(name, 8, 4, 6);
    }

    private static Object version(long counter) throws Exception {
        return Make.of("DataVersion", "timestamp", BORN, "counter", new java.util.concurrent.atomic.AtomicLong(counter));
    }

    private Object wrapper(String... topics) throws Exception {
        ConcurrentHashMap<String, TopicConfig> table = new ConcurrentHashMap<>();
        for (String t : topics) {
            table.put(t, topic(t));
        }
        String cls = Make.has("body.TopicConfigAndMappingSerializeWrapper") ? "body.TopicConfigAndMappingSerializeWrapper" : "body.TopicConfigSerializeWrapper";
        Object w = Make.of(cls, "topicConfigTable", table, "dataVersion", version(42));
        if (five) {
            Object mapping = Make.call(w, "getMappingDataVersion");
            Make.fill(mapping, "timestamp", BORN);
        }
        return w;
    }

    private void registrations() throws Exception {
        for (boolean packed : new boolean[] {false, true}) {
            Object b = Make.of("body.RegisterBrokerBody", "topicConfigSerializeWrapper", wrapper("TopicTest", "TBW102", "%RETRY%CG"),
                "filterServerList", Collections.emptyList());
            byte[] body = (byte[]) Make.call(b, "encode", packed);
            Object h = Make.of("header.namesrv.RegisterBrokerRequestHeader", "brokerName", "broker-a", "brokerAddr", "10.0.0.1:10911",
                "clusterName", "DefaultCluster", "haServerAddr", "10.0.0.1:10912", "brokerId", 0L, "compressed", packed,
                "bodyCrc32", org.apache.rocketmq.common.UtilAll.crc32(body), "?heartbeatTimeoutMillis", 120000L, "?enableActingMaster", false);
            command("REGISTER_BROKER " + (packed ? "compressed" : "plain"), Make.request("REGISTER_BROKER", h), body);
        }
        command("UNREGISTER_BROKER", Make.request("UNREGISTER_BROKER", Make.of("header.namesrv.UnRegisterBrokerRequestHeader", "brokerName", "broker-a",
            "brokerAddr", "10.0.0.1:10911", "clusterName", "DefaultCluster", "brokerId", 1L)), null);
        command("QUERY_DATA_VERSION", Make.request("QUERY_DATA_VERSION", Make.of("header.namesrv.QueryDataVersionRequestHeader", "brokerName", "broker-a",
            "brokerAddr", "10.0.0.1:10911", "clusterName", "DefaultCluster", "brokerId", 0L)), (byte[]) Make.call(version(42), "encode"));
        command("GET_ROUTEINFO_BY_TOPIC", Make.request("GET_ROUTEINFO_BY_TOPIC", Make.of("header.namesrv.GetRouteInfoRequestHeader", "topic", "TopicTest")), null);
        command("UPDATE_AND_CREATE_TOPIC", Make.request("UPDATE_AND_CREATE_TOPIC", Make.of("header.CreateTopicRequestHeader", "topic", "TopicTest",
            "defaultTopic", "TBW102", "readQueueNums", 8, "writeQueueNums", 4, "perm", 6, "topicFilterType", "SINGLE_TAG", "topicSysFlag", 0,
            "order", false, "?attributes", "+message.type=FIFO")), null);
        body("TopicConfigWrapper", wrapper("TopicTest"));
        body("TopicConfig", topic("TopicTest"));
    }

    private void answers() throws Exception {
        RemotingCommand sent = Make.response("SUCCESS", null, "header.SendMessageResponseHeader", "msgId", "0A00000100002A9F0000000000001234",
            "queueId", 3, "queueOffset", 77L, "transactionId", "0A0000010000000000000000000000FF");
        sent.addExtField("MSG_REGION", "DefaultRegion");
        sent.addExtField("TRACE_ON", "true");
        command("answer SEND_MESSAGE", sent, null);
        RemotingCommand refused = Make.response("SYSTEM_BUSY", "[PC_SYNCHRONIZED]broker busy, \"wait\" \\ \u0001\t\n\u001f 请稍候 😀", "header.SendMessageResponseHeader");
        refused.addExtField("MSG_REGION", "DefaultRegion");
        refused.addExtField("TRACE_ON", "true");
        command("answer SEND_MESSAGE busy", refused, null);
        command("answer PULL_MESSAGE found", Make.response("SUCCESS", "FOUND", "header.PullMessageResponseHeader", "suggestWhichBrokerId", 0L,
            "nextBeginOffset", 100L, "minOffset", 3L, "maxOffset", 200L), new byte[] {0, 1, 2, (byte) 0xff});
        command("answer PULL_MESSAGE none", Make.response("PULL_NOT_FOUND", null, "header.PullMessageResponseHeader", "suggestWhichBrokerId", 1L,
            "nextBeginOffset", 100L, "minOffset", 3L, "maxOffset", 100L), null);
        command("answer plain", Make.response("SUCCESS", null, null), null);
        command("answer not supported", Make.response("REQUEST_CODE_NOT_SUPPORTED", " request type 999 not supported", null), null);
        command("answer QUERY_CONSUMER_OFFSET", Make.response("SUCCESS", null, "header.QueryConsumerOffsetResponseHeader", "offset", 99L), null);
        command("answer QUERY_DATA_VERSION", Make.response("SUCCESS", null, "header.namesrv.QueryDataVersionResponseHeader", "changed", true),
            (byte[]) Make.call(version(41), "encode"));
        command("answer REGISTER_BROKER", Make.response("SUCCESS", null, "header.namesrv.RegisterBrokerResponseHeader",
            "haServerAddr", "10.0.0.1:10912", "masterAddr", "10.0.0.1:10911"), null);
    }

    private Object broker() throws Exception {
        HashMap<Long, String> addrs = new HashMap<>();
        addrs.put(0L, "10.0.0.1:10911");
        addrs.put(1L, "10.0.0.2:10911");
        return Make.of("route.BrokerData", "cluster", "DefaultCluster", "brokerName", "broker-a", "brokerAddrs", addrs);
    }

    private void tables() throws Exception {
        Object queues = Make.of("route.QueueData", "brokerName", "broker-a", "readQueueNums", 8, "writeQueueNums", 8, "perm", 6);
        body("TopicRouteData", Make.of("route.TopicRouteData", "queueDatas", Arrays.asList(queues), "brokerDatas", Arrays.asList(broker()),
            "filterServerTable", new HashMap<>()));
        HashMap<String, Object> brokers = new HashMap<>();
        brokers.put("broker-a", broker());
        HashMap<String, Set<String>> clusters = new HashMap<>();
        clusters.put("DefaultCluster", new HashSet<>(Arrays.asList("broker-a")));
        body("ClusterInfo", Make.of("body.ClusterInfo", "brokerAddrTable", brokers, "clusterAddrTable", clusters));
        HashMap<String, String> kv = new HashMap<>();
        kv.put("TopicTest", "broker-a:8;broker-b:8");
        body("KVTable", Make.of("body.KVTable", "table", kv));
        body("TopicList", Make.of("body.TopicList", "topicList", new HashSet<>(Arrays.asList("TopicTest")), "brokerAddr", "10.0.0.1:10911"));
        Object group = Make.of("SubscriptionGroupConfig", "groupName", "CG");
        body("SubscriptionGroupConfig", group);
        ConcurrentHashMap<String, Object> groups = new ConcurrentHashMap<>();
        groups.put("CG", group);
        body("SubscriptionGroupWrapper", Make.of("body.SubscriptionGroupWrapper", "subscriptionGroupTable", groups, "dataVersion", version(5)));
    }

    private static <V> Map<MessageQueue, V> byQueue(V v) {
        Map<MessageQueue, V> m = new HashMap<>();
        m.put(new MessageQueue("TopicTest", "broker-a", 3), v);
        return m;
    }

    private static <V> ConcurrentHashMap<MessageQueue, V> byQueueConcurrent(V v) {
        return new ConcurrentHashMap<>(byQueue(v));
    }

    private void stats() throws Exception {
        String offset = Make.has("TopicOffset") ? "TopicOffset" : "admin.TopicOffset";
        Object topicStats = Make.of("TopicStatsTable");
        Object o = Make.of(offset, "minOffset", 1L, "maxOffset", 2L, "lastUpdateTimestamp", BORN);
        setTable(topicStats, o);
        body("TopicStatsTable", topicStats);
        Object consume = Make.of("ConsumeStats", "consumeTps", 12.5);
        setTable(consume, Make.of("OffsetWrapper", "brokerOffset", 10L, "consumerOffset", 4L, "lastTimestamp", BORN, "?pullOffset", 6L));
        body("ConsumeStats", consume);
        Map<String, List<Object>> groups = new HashMap<>();
        groups.put("CG", new ArrayList<>(Arrays.asList(consume)));
        body("ConsumeStatsList", Make.of("body.ConsumeStatsList", "consumeStatsList", new ArrayList<>(Arrays.asList(groups)),
            "brokerAddr", "10.0.0.1:10911", "totalDiff", 6L));
        body("ResetOffsetBody", Make.of("body.ResetOffsetBody", "offsetTable", byQueue(7L)));
        Map<String, Map<MessageQueue, Long>> clients = new HashMap<>();
        clients.put("c@1", byQueue(7L));
        body("GetConsumerStatusBody", Make.of("body.GetConsumerStatusBody", "messageQueueTable", new HashMap<>(), "consumerTable", clients));
        Map<MessageQueue, Long> same = byQueue(7L);
        Map<String, Map<MessageQueue, Long>> twice = new TreeMap<>();
        twice.put("c@1", same);
        twice.put("c@2", new HashMap<>(same));
        body("GetConsumerStatusBody with references", Make.of("body.GetConsumerStatusBody", "messageQueueTable", same, "consumerTable", twice));
        ConcurrentHashMap<String, Object> offsets = new ConcurrentHashMap<>();
        ConcurrentHashMap<Integer, Long> perQueue = new ConcurrentHashMap<>();
        perQueue.put(0, 5L);
        perQueue.put(3, 9L);
        offsets.put("TopicTest@CG", perQueue);
        body("ConsumerOffsetSerializeWrapper", Make.of("body.ConsumerOffsetSerializeWrapper", "offsetTable", offsets));
        Object item = Make.of("body.BrokerStatsItem", "sum", 12L, "tps", 0.2, "avgpt", 1.0E-5);
        body("BrokerStatsData", Make.of("body.BrokerStatsData", "statsMinute", item, "statsHour", Make.of("body.BrokerStatsItem", "sum", 1L, "tps", 1.23456789E8),
            "statsDay", Make.of("body.BrokerStatsItem")));
        Object span = Make.of("body.QueueTimeSpan", "messageQueue", new MessageQueue("TopicTest", "broker-a", 3), "minTimeStamp", BORN, "maxTimeStamp", BORN + 1,
            "consumeTimeStamp", BORN, "delayTime", 1L);
        body("QueryConsumeTimeSpanBody", Make.of("body.QueryConsumeTimeSpanBody", "consumeTimeSpanSet", new ArrayList<>(Arrays.asList(span))));
        Object entry = Make.of("body.ConsumeQueueData", "physicOffset", 4660L, "physicSize", 200, "tagsCode", 2598919L, "eval", true, "msg", "m");
        body("QueryConsumeQueueResponseBody", Make.of("body.QueryConsumeQueueResponseBody", "queueData", Arrays.asList(entry), "maxQueueIndex", 9L, "minQueueIndex", 1L,
            "subscriptionData", subscription()));
    }

    private static void setTable(Object o, Object value) throws Exception {
        Class<?> t = o.getClass().getDeclaredField("offsetTable").getType();
        Make.fill(o, "offsetTable", t == Map.class ? byQueueConcurrent(value) : t == HashMap.class ? byQueue(value) : byQueueConcurrent(value));
    }

    private void running() throws Exception {
        java.util.Properties p = new java.util.Properties();
        p.setProperty("PROP_CLIENT_VERSION", "V4_9_8");
        TreeMap<MessageQueue, Object> mq = new TreeMap<>();
        mq.put(new MessageQueue("TopicTest", "broker-a", 3), Make.of("body.ProcessQueueInfo", "commitOffset", 5L, "droped", true, "cachedMsgCount", 2));
        TreeMap<String, Object> status = new TreeMap<>();
        status.put("TopicTest", Make.of("body.ConsumeStatus", "pullRT", 1.5, "consumeFailedMsgs", 3L));
        TreeSet<Object> subs = new TreeSet<>();
        subs.add(subscription());
        body("ConsumerRunningInfo", Make.of("body.ConsumerRunningInfo", "properties", p, "subscriptionSet", subs, "mqTable", mq, "statusTable", status));
        body("ConsumeMessageDirectlyResult", Make.of("body.ConsumeMessageDirectlyResult", "consumeResult", "CR_LATER", "remark", "r", "spentTimeMills", 12L));
        Set<Object> languages = new LinkedHashSet<>();
        for (Object l : Make.type("LanguageCode").getEnumConstants()) {
            languages.add(l);
        }
        body("LanguageCode names", languages);
        Map<Integer, String> versions = new TreeMap<>();
        for (int v = 0; v <= 620; v++) {
            versions.put(v, (String) Make.call(Class.forName("org.apache.rocketmq.common.MQVersion"), "getVersionDesc", v));
        }
        body("MQVersion names", new ArrayList<>(versions.values()));
        for (String cls : new String[] {"RequestCode", "ResponseCode"}) {
            TreeMap<String, Integer> codes = new TreeMap<>();
            for (Class<?> c = Make.type(cls); c != Object.class; c = c.getSuperclass()) {
                for (java.lang.reflect.Field f : c.getDeclaredFields()) {
                    if (f.getType() == int.class) {
                        codes.put(f.getName(), f.getInt(null));
                    }
                }
            }
            body(cls + " numbers", codes);
        }
    }
}
