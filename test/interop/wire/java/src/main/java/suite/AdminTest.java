package suite;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.Callable;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;
import org.apache.rocketmq.tools.admin.api.TrackType;
import org.junit.AfterClass;
import org.junit.Assume;
import org.junit.BeforeClass;
import org.junit.Test;

/** What mqadmin and the dashboard ask for. Types that moved between the release lines are not named. */
public class AdminTest {
    private static final String CLUSTER = "DefaultCluster";

    private static DefaultMQProducer producer;
    private static DefaultMQAdminExt admin;
    private static String broker;
    private static String addr;

    @BeforeClass
    public static void start() throws Exception {
        producer = Cluster.producer();
        admin = new DefaultMQAdminExt(10_000);
        admin.setNamesrvAddr(Cluster.NAMESRV);
        admin.setInstanceName(Cluster.name("a"));
        admin.start();
        var info = admin.examineBrokerClusterInfo();
        broker = info.getClusterAddrTable().get(CLUSTER).iterator().next();
        var data = info.getBrokerAddrTable().get(broker);
        assertEquals(CLUSTER, data.getCluster());
        addr = data.getBrokerAddrs().get(0L);
    }

    @AfterClass
    public static void stop() {
        admin.shutdown();
        producer.shutdown();
    }

    private static String newTopic(int queues) throws Exception {
        String topic = Cluster.name("Admin");
        admin.createAndUpdateTopicConfig(addr, new TopicConfig(topic, queues, queues, 6));
        Cluster.await("the route of " + topic, 20_000, () -> perm(topic) == 6);
        return topic;
    }

    /** The permission that the route of a topic tells, or -1. */
    private static int perm(String topic) throws Exception {
        try {
            return admin.examineTopicRouteInfo(topic).getQueueDatas().get(0).getPerm();
        } catch (MQClientException e) {
            assertEquals(17, e.getResponseCode());
            return -1;
        }
    }

    /** Deletes a topic at the name server; the newer library wants the cluster before the topic. */
    private static void deleteRoute(String topic) throws Exception {
        Set<String> all = Collections.singleton(Cluster.NAMESRV);
        boolean newer = false;
        for (Method m : DefaultMQAdminExt.class.getMethods()) {
            newer |= m.getName().equals("deleteTopicInNameServer") && m.getParameterCount() == 2;
        }
        if (newer) {
            admin.deleteTopicInNameServer(all, CLUSTER, topic);
        } else {
            admin.deleteTopicInNameServer(all, topic, CLUSTER);
        }
    }

    private static List<SendResult> send(String topic, int n) throws Exception {
        List<SendResult> out = new ArrayList<>();
        for (int i = 0; i < n; i++) {
            out.add(producer.send(new Message(topic, "T", "k" + i, ("m" + i).getBytes(StandardCharsets.UTF_8))));
        }
        return out;
    }

    private static DefaultMQPushConsumer consume(String group, String topic, Cluster.Inbox box) throws Exception {
        DefaultMQPushConsumer c = Cluster.consumer(group);
        c.subscribe(topic, "T || U");
        c.registerMessageListener((MessageListenerConcurrently) (msgs, ctx) -> {
            box.addAll(msgs);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        c.start();
        return c;
    }

    /** What is committed of a topic's queues. */
    private static long committed(String group, String topic) throws Exception {
        long sum = 0;
        for (var o : admin.examineConsumeStats(group, topic).getOffsetTable().values()) {
            sum += o.getConsumerOffset();
        }
        return sum;
    }

    private static void refused(int code, Callable<?> call) throws Exception {
        try {
            call.call();
        } catch (MQBrokerException e) {
            assertEquals(e.getErrorMessage(), code, e.getResponseCode());
            return;
        } catch (MQClientException e) {
            assertEquals(e.getErrorMessage(), code, e.getResponseCode());
            return;
        }
        fail("not refused with " + code);
    }

    /** Calls what only the newer release line has. */
    private static Object newer(String name, Object... args) throws Exception {
        for (Method m : DefaultMQAdminExt.class.getMethods()) {
            if (m.getName().equals(name) && m.getParameterCount() == args.length) {
                try {
                    return m.invoke(admin, args);
                } catch (InvocationTargetException e) {
                    if (e.getCause() instanceof Exception) {
                        throw (Exception) e.getCause();
                    }
                    throw e;
                }
            }
        }
        Assume.assumeTrue("this library has no " + name, false);
        return null;
    }

    private static Object get(Object of, String getter) throws Exception {
        return of.getClass().getMethod(getter).invoke(of);
    }

    @Test
    public void cluster() throws Exception {
        String topic = newTopic(4);
        assertEquals(Collections.singleton(CLUSTER), admin.getTopicClusterList(topic));
        assertTrue(admin.fetchTopicsByCLuster(CLUSTER).getTopicList().contains(topic));
        assertTrue(admin.fetchAllTopicList().getTopicList().contains(topic));
        var route = admin.examineTopicRouteInfo(topic);
        assertEquals(addr, route.getBrokerDatas().get(0).getBrokerAddrs().get(0L));
        assertEquals(4, route.getQueueDatas().get(0).getReadQueueNums());
        assertEquals(4, route.getQueueDatas().get(0).getWriteQueueNums());
        assertEquals(Collections.singletonList(Cluster.NAMESRV), admin.getNameServerAddressList());
        refused(17, () -> admin.examineTopicRouteInfo(Cluster.name("Nowhere")));
    }

    @Test
    public void runtimeStats() throws Exception {
        String topic = newTopic(4);
        Map<String, String> before = admin.fetchBrokerRuntimeStats(addr).getTable();
        send(topic, 20);
        Map<String, String> t = admin.fetchBrokerRuntimeStats(addr).getTable();
        assertEquals(Long.parseLong(before.get("msgPutTotalTodayNow")) + 20, Long.parseLong(t.get("msgPutTotalTodayNow")));
        for (String k : new String[] {"putTps", "getTotalTps", "getTransferredTps", "getFoundTps", "getMissTps"}) {
            assertNotNull(k, t.get(k));
            for (String n : t.get(k).trim().split(" ")) {
                Double.parseDouble(n);
            }
        }
        for (String k : new String[] {"msgPutTotalTodayMorning", "msgPutTotalYesterdayMorning", "msgGetTotalTodayNow", "msgGetTotalTodayMorning",
            "msgGetTotalYesterdayMorning", "sendThreadPoolQueueSize", "pullThreadPoolQueueSize", "sendThreadPoolQueueHeadWaitTimeMills",
            "pullThreadPoolQueueHeadWaitTimeMills", "pageCacheLockTimeMills", "earliestMessageTimeStamp", "bootTimestamp", "commitLogMinOffset",
            "commitLogMaxOffset", "putMessageTimesTotal", "getMessageEntireTimeMax", "putMessageEntireTimeMax",
            "queryThreadPoolQueueSize", "dispatchBehindBytes", "remainHowManyDataToFlush", "timerReadBehind", "timerOffsetBehind"}) {
            assertNotNull(k, t.get(k));
            if (!k.equals("remainHowManyDataToFlush")) {
                Long.parseLong(t.get(k));
            }
        }
        for (String k : new String[] {"commitLogDiskRatio", "consumeQueueDiskRatio", "putMessageAverageSize"}) {
            Double.parseDouble(t.get(k));
        }
        for (String k : new String[] {"brokerVersionDesc", "runtime", "commitLogDirCapacity", "putMessageDistributeTime", "startAcceptSendRequestTimeStamp",
            "sendThreadPoolQueueCapacity", "pullThreadPoolQueueCapacity"}) {
            assertNotNull(k, t.get(k));
        }
    }

    @Test
    public void brokerConfig() throws Exception {
        Properties p = admin.getBrokerConfig(addr);
        assertEquals(broker, p.getProperty("brokerName"));
        assertEquals("0", p.getProperty("brokerId"));
        assertEquals(CLUSTER, p.getProperty("brokerClusterName"));
        assertEquals(addr.substring(addr.indexOf(':') + 1), p.getProperty("listenPort"));
        String key = "maxTransferCountOnMessageInMemory";
        String was = p.getProperty(key);
        assertNotNull(was);
        Properties change = new Properties();
        change.setProperty(key, "48");
        admin.updateBrokerConfig(addr, change);
        assertEquals("48", admin.getBrokerConfig(addr).getProperty(key));
        change.setProperty(key, was);
        admin.updateBrokerConfig(addr, change);
        assertEquals(was, admin.getBrokerConfig(addr).getProperty(key));
        Properties barred = new Properties();
        barred.setProperty("brokerConfigPath", "/tmp/x");
        refused(16, () -> {
            admin.updateBrokerConfig(addr, barred);
            return null;
        });
    }

    @Test
    public void nameServerConfig() throws Exception {
        List<String> all = Collections.singletonList(Cluster.NAMESRV);
        Properties p = admin.getNameServerConfig(all).get(Cluster.NAMESRV);
        assertEquals(Cluster.NAMESRV.substring(Cluster.NAMESRV.indexOf(':') + 1), p.getProperty("listenPort"));
        String was = p.getProperty("orderMessageEnable");
        Properties change = new Properties();
        change.setProperty("orderMessageEnable", "true");
        admin.updateNameServerConfig(change, all);
        assertEquals("true", admin.getNameServerConfig(all).get(Cluster.NAMESRV).getProperty("orderMessageEnable"));
        change.setProperty("orderMessageEnable", was);
        admin.updateNameServerConfig(change, all);
        assertEquals(was, admin.getNameServerConfig(all).get(Cluster.NAMESRV).getProperty("orderMessageEnable"));
        Properties barred = new Properties();
        barred.setProperty("kvConfigPath", "/tmp/x");
        refused(16, () -> {
            admin.updateNameServerConfig(barred, all);
            return null;
        });
    }

    @Test
    public void keyValues() throws Exception {
        String ns = Cluster.name("NS");
        refused(22, () -> admin.getKVConfig(ns, "k"));
        admin.createAndUpdateKvConfig(ns, "k", "v");
        assertEquals("v", admin.getKVConfig(ns, "k"));
        admin.createAndUpdateKvConfig(ns, "k", "w \u4f60");
        assertEquals("w \u4f60", admin.getKVConfig(ns, "k"));
        admin.createAndUpdateKvConfig(ns, "l", "x");
        assertEquals(Map.of("k", "w \u4f60", "l", "x"), admin.getKVListByNamespace(ns).getTable());
        admin.deleteKvConfig(ns, "k");
        refused(22, () -> admin.getKVConfig(ns, "k"));
        refused(22, () -> admin.getKVListByNamespace(Cluster.name("NS")));

        String topic = newTopic(4);
        admin.createOrUpdateOrderConf(topic, broker + ":4", true);
        assertEquals(broker + ":4", admin.getKVConfig("ORDER_TOPIC_CONFIG", topic));
        admin.createOrUpdateOrderConf(topic, "another:2", false);
        Set<String> parts = new HashSet<>(List.of(admin.getKVConfig("ORDER_TOPIC_CONFIG", topic).split(";")));
        assertEquals(Set.of(broker + ":4", "another:2"), parts);
        admin.deleteKvConfig("ORDER_TOPIC_CONFIG", topic);
    }

    @Test
    public void topics() throws Exception {
        String topic = newTopic(8);
        send(topic, 80);
        TopicConfig c = admin.examineTopicConfig(addr, topic);
        assertEquals(8, c.getReadQueueNums());
        assertEquals(8, c.getWriteQueueNums());
        assertEquals(6, c.getPerm());
        var stats = admin.examineTopicStats(topic).getOffsetTable();
        assertEquals(8, stats.size());
        long sum = 0;
        for (var o : stats.values()) {
            assertEquals(0, o.getMinOffset());
            assertTrue(o.getLastUpdateTimestamp() > 0);
            sum += o.getMaxOffset();
        }
        assertEquals(80, sum);

        TopicConfig less = new TopicConfig(topic, 8, 2, 6);
        admin.createAndUpdateTopicConfig(addr, less);
        assertEquals(2, admin.examineTopicConfig(addr, topic).getWriteQueueNums());
        assertEquals(8, admin.examineTopicStats(topic).getOffsetTable().size());
        Cluster.await("the route of the smaller topic", 20_000, () -> admin.examineTopicRouteInfo(topic).getQueueDatas().get(0).getWriteQueueNums() == 2);

        assertTrue(admin.getAllTopicConfig(addr, 10_000).getTopicConfigTable().containsKey(topic));
        assertTrue(admin.getAllTopicConfig(addr, 10_000).getTopicConfigTable().containsKey("TBW102"));
        var user = admin.getUserTopicConfig(addr, false, 10_000).getTopicConfigTable();
        assertTrue(user.containsKey(topic));
        assertFalse(user.containsKey("TBW102"));
        assertFalse(user.containsKey("SCHEDULE_TOPIC_XXXX"));

        admin.deleteTopicInBroker(Collections.singleton(addr), topic);
        deleteRoute(topic);
        Cluster.await("the route is gone", 20_000, () -> perm(topic) == -1);
        assertFalse(admin.getAllTopicConfig(addr, 10_000).getTopicConfigTable().containsKey(topic));
        assertFalse(admin.fetchAllTopicList().getTopicList().contains(topic));
        refused(29, () -> {
            admin.createAndUpdateTopicConfig(addr, new TopicConfig("has a space", 4, 4, 6));
            return null;
        });
    }

    @Test
    public void groups() throws Exception {
        String group = Cluster.name("G");
        var c = admin.examineSubscriptionGroupConfig(addr, "TOOLS_CONSUMER");
        c.setGroupName(group);
        c.setRetryMaxTimes(3);
        c.setRetryQueueNums(2);
        c.setConsumeBroadcastEnable(false);
        admin.createAndUpdateSubscriptionGroupConfig(addr, c);
        var got = admin.examineSubscriptionGroupConfig(addr, group);
        assertEquals(group, got.getGroupName());
        assertEquals(3, got.getRetryMaxTimes());
        assertEquals(2, got.getRetryQueueNums());
        assertFalse(got.isConsumeBroadcastEnable());
        assertTrue(got.isConsumeEnable());
        var all = admin.getAllSubscriptionGroup(addr, 10_000).getSubscriptionGroupTable();
        assertEquals(3, all.get(group).getRetryMaxTimes());
        assertTrue(all.containsKey("TOOLS_CONSUMER"));
        var user = admin.getUserSubscriptionGroup(addr, 10_000).getSubscriptionGroupTable();
        assertTrue(user.containsKey(group));
        assertFalse(user.containsKey("TOOLS_CONSUMER"));
        admin.deleteSubscriptionGroup(addr, group, true);
        assertFalse(admin.getAllSubscriptionGroup(addr, 10_000).getSubscriptionGroupTable().containsKey(group));
        refused(206, () -> admin.examineConsumerConnectionInfo(group, addr));
    }

    @Test
    public void runningConsumer() throws Exception {
        String topic = newTopic(4);
        String group = Cluster.name("G");
        Cluster.Inbox box = new Cluster.Inbox();
        List<SendResult> sent = send(topic, 40);
        DefaultMQPushConsumer c = consume(group, topic, box);
        try {
            Cluster.await("40 messages", 60_000, () -> box.size() >= 40);
            var conns = admin.examineConsumerConnectionInfo(group);
            assertEquals("CONSUME_PASSIVELY", conns.getConsumeType().name());
            assertEquals("CLUSTERING", conns.getMessageModel().name());
            assertEquals("CONSUME_FROM_FIRST_OFFSET", conns.getConsumeFromWhere().name());
            assertEquals("T || U", conns.getSubscriptionTable().get(topic).getSubString());
            assertEquals(1, conns.getConnectionSet().size());
            var conn = conns.getConnectionSet().iterator().next();
            String id = conn.getClientId();
            assertTrue(id, id.contains("@"));
            assertEquals("JAVA", conn.getLanguage().name());
            assertTrue(conn.getVersion() > 0);
            assertEquals(1, admin.examineConsumerConnectionInfo(group, addr).getConnectionSet().size());
            assertEquals(conns.computeMinVersion(), conn.getVersion());

            var info = admin.getConsumerRunningInfo(group, id, true);
            assertEquals("CONSUME_PASSIVELY", info.getProperties().getProperty("PROP_CONSUME_TYPE"));
            assertEquals(2, info.getSubscriptionSet().size());
            assertTrue("" + info.getMqTable().keySet(), info.getMqTable().size() >= 4);
            assertTrue(info.getStatusTable().containsKey(topic));
            assertTrue(info.getJstack(), info.getJstack().contains("java"));
            assertTrue(info.formatString().contains(topic));

            Cluster.await("the group has committed", 30_000, () -> committed(group, topic) == 40);
            var stats = admin.examineConsumeStats(group);
            assertEquals(0, stats.computeTotalDiff());
            int queues = 0;
            for (var e : stats.getOffsetTable().entrySet()) {
                if (e.getKey().getTopic().equals(topic)) {
                    assertTrue(e.getValue().getLastTimestamp() > 0);
                    assertEquals(e.getValue().getBrokerOffset(), e.getValue().getConsumerOffset());
                    queues++;
                }
            }
            assertEquals(4, queues);
            assertTrue(admin.queryTopicConsumeByWho(topic).getGroupList().contains(group));
            var spans = admin.queryConsumeTimeSpan(topic, group);
            assertEquals(4, spans.size());
            for (var s : spans) {
                assertTrue(s.getMinTimeStamp() > 0);
                assertTrue(s.getMaxTimeStamp() >= s.getMinTimeStamp());
                assertEquals(0, s.getDelayTime());
            }
            boolean listed = false;
            for (Map<String, ?> m : admin.fetchConsumeStatsInBroker(addr, false, 10_000).getConsumeStatsList()) {
                listed |= m.containsKey(group);
            }
            assertTrue("consume stats of the broker list the group", listed);

            Map<String, Map<MessageQueue, Long>> status = admin.getConsumeStatus(topic, group, "");
            assertEquals(Collections.singleton(id), status.keySet());
            long sum = 0;
            for (long at : status.get(id).values()) {
                sum += at;
            }
            assertEquals(40, sum);

            SendResult one = sent.get(7);
            Cluster.await("the index", 20_000, () -> admin.viewMessage(topic, one.getMsgId()) != null);
            var direct = admin.consumeMessageDirectly(group, id, topic, one.getMsgId());
            assertEquals("CR_SUCCESS", direct.getConsumeResult().name());
            assertFalse(direct.isOrder());
            assertEquals(41, box.size());

            var tracks = admin.messageTrackDetail(admin.viewMessage(topic, one.getMsgId()));
            assertEquals(1, tracks.size());
            assertEquals(group, tracks.get(0).getConsumerGroup());
            assertEquals(String.valueOf(tracks.get(0).getExceptionDesc()), TrackType.CONSUMED, tracks.get(0).getTrackType());
            refused(1, () -> admin.consumeMessageDirectly(group, "nobody@1", topic, one.getMsgId()));
        } finally {
            c.shutdown();
        }
        Cluster.await("the group is offline", 20_000, () -> {
            try {
                admin.examineConsumerConnectionInfo(group);
                return false;
            } catch (MQBrokerException e) {
                return e.getResponseCode() == 206;
            }
        });
        var tracks = admin.messageTrackDetail(admin.viewMessage(topic, sent.get(7).getMsgId()));
        assertEquals(1, tracks.size());
        assertEquals(TrackType.NOT_ONLINE, tracks.get(0).getTrackType());
    }

    @Test
    public void producers() throws Exception {
        String topic = newTopic(4);
        send(topic, 4);
        String group = producer.getProducerGroup();
        Cluster.await("the producer is known", 60_000, () -> {
            try {
                return admin.examineProducerConnectionInfo(group, topic).getConnectionSet().size() == 1;
            } catch (MQBrokerException | MQClientException e) {
                return false;
            }
        });
        assertEquals("JAVA", admin.examineProducerConnectionInfo(group, topic).getConnectionSet().iterator().next().getLanguage().name());
        var all = admin.getAllProducerInfo(addr).getData();
        assertEquals(1, all.get(group).size());
        assertEquals("JAVA", all.get(group).get(0).getLanguage().name());
        assertTrue(all.get(group).get(0).getRemoteIP(), all.get(group).get(0).getRemoteIP().contains("127.0.0.1"));
        try {
            admin.examineProducerConnectionInfo(Cluster.name("PG"), topic);
            fail("no such producer");
        } catch (MQBrokerException e) {
            assertEquals(1, e.getResponseCode());
        }
    }

    @Test
    public void resetOfARunningGroup() throws Exception {
        String topic = newTopic(4);
        String group = Cluster.name("G");
        Cluster.Inbox box = new Cluster.Inbox();
        send(topic, 40);
        DefaultMQPushConsumer c = consume(group, topic, box);
        try {
            Cluster.await("40 messages", 60_000, () -> box.size() >= 40);
            Cluster.await("the group has committed", 30_000, () -> committed(group, topic) == 40);
            Map<MessageQueue, Long> to = admin.resetOffsetByTimestamp(topic, group, 0, true);
            assertEquals(4, to.size());
            for (long at : to.values()) {
                assertEquals(0, at);
            }
            Cluster.await("all of it again", 60_000, () -> box.size() >= 80);
            Cluster.await("the group has committed again", 60_000, () -> committed(group, topic) == 40);
            to = admin.resetOffsetByTimestamp(topic, group, System.currentTimeMillis() + 3_600_000, true);
            long sum = 0;
            for (long at : to.values()) {
                sum += at;
            }
            assertEquals(40, sum);
            assertEquals(80, box.size());
        } finally {
            c.shutdown();
        }
    }

    @Test
    public void offsetsOfAnOfflineGroup() throws Exception {
        String topic = newTopic(2);
        String group = Cluster.name("G");
        Cluster.Inbox box = new Cluster.Inbox();
        List<SendResult> sent = send(topic, 20);
        DefaultMQPushConsumer c = consume(group, topic, box);
        Cluster.await("20 messages", 60_000, () -> box.size() >= 20);
        c.shutdown();
        Cluster.await("the group has committed", 30_000, () -> committed(group, topic) == 20);

        var back = admin.resetOffsetByTimestampOld(group, topic, 0, true);
        assertEquals(2, back.size());
        for (var s : back) {
            assertEquals(broker, s.getBrokerName());
            assertEquals(s.getBrokerOffset(), s.getConsumerOffset());
            assertEquals(0, s.getRollbackOffset());
        }
        assertEquals(0, committed(group, topic));

        MessageQueue q = sent.get(0).getMessageQueue();
        admin.updateConsumeOffset(addr, group, q, 3);
        assertEquals(3, committed(group, topic));
        assertEquals(17, admin.examineConsumeStats(group, topic).computeTotalDiff());

        String clone = Cluster.name("G");
        admin.cloneGroupOffset(group, clone, topic, true);
        admin.resetOffsetNew(group, topic, System.currentTimeMillis() + 3_600_000);
        assertEquals(20, committed(group, topic));
        assertEquals(20, admin.maxOffset(new MessageQueue(topic, broker, 0)) + admin.maxOffset(new MessageQueue(topic, broker, 1)));
        assertEquals(0, admin.minOffset(q));
        assertEquals(0, admin.searchOffset(q, 0));
        assertEquals(admin.maxOffset(q), admin.searchOffset(q, System.currentTimeMillis() + 3_600_000));
        long first = admin.earliestMsgStoreTime(q);
        assertTrue(Math.abs(System.currentTimeMillis() - first) < 600_000);

        admin.deleteSubscriptionGroup(addr, group, true);
        DefaultMQPushConsumer heir = consume(clone, topic, new Cluster.Inbox());
        try {
            Cluster.await("the clone is where the group was", 30_000, () -> committed(clone, topic) >= 3);
        } finally {
            heir.shutdown();
        }
    }

    @Test
    public void consumeQueue() throws Exception {
        String topic = newTopic(1);
        List<SendResult> sent = send(topic, 10);
        String group = Cluster.name("G");
        DefaultMQPushConsumer c = consume(group, topic, new Cluster.Inbox());
        try {
            Cluster.await("the subscription", 20_000, () -> admin.queryConsumeQueue(addr, topic, 0, 2, 5, group).getSubscriptionData() != null);
            var q = admin.queryConsumeQueue(addr, topic, 0, 2, 5, group);
            assertEquals(0, q.getMinQueueIndex());
            assertEquals(10, q.getMaxQueueIndex());
            assertEquals(5, q.getQueueData().size());
            assertEquals("T".hashCode(), q.getQueueData().get(0).getTagsCode());
            assertTrue(q.getQueueData().get(0).getPhysicSize() > 91);
            assertEquals("T || U", q.getSubscriptionData().getSubString());
        } finally {
            c.shutdown();
        }
        var m = admin.viewMessage(topic, sent.get(3).getOffsetMsgId());
        assertEquals("m3", new String(m.getBody(), StandardCharsets.UTF_8));
        Cluster.await("the index", 20_000, () -> {
            try {
                return admin.queryMessage(topic, "k3", 32, 0, Long.MAX_VALUE).getMessageList().size() == 1;
            } catch (MQClientException e) {
                return false;
            }
        });
        assertEquals(3, admin.queryMessage(topic, "k3", 32, 0, Long.MAX_VALUE).getMessageList().get(0).getQueueOffset());
    }

    @Test
    public void statistics() throws Exception {
        String topic = newTopic(1);
        String group = Cluster.name("G");
        Cluster.Inbox box = new Cluster.Inbox();
        DefaultMQPushConsumer c = consume(group, topic, box);
        try {
            Cluster.await("the statistics of a minute", 60_000, () -> {
                send(topic, 5);
                Thread.sleep(500);
                try {
                    return admin.viewBrokerStatsData(addr, "TOPIC_PUT_NUMS", topic).getStatsMinute().getSum() >= 5
                        && admin.viewBrokerStatsData(addr, "TOPIC_PUT_SIZE", topic).getStatsMinute().getSum() > 5 * 91
                        && admin.viewBrokerStatsData(addr, "GROUP_GET_NUMS", topic + "@" + group).getStatsMinute().getSum() >= 5;
                } catch (MQClientException e) {
                    return false;
                }
            });
            assertTrue(admin.viewBrokerStatsData(addr, "TOPIC_PUT_NUMS", topic).getStatsMinute().getTps() > 0);
            assertNotNull(admin.viewBrokerStatsData(addr, "TOPIC_PUT_NUMS", topic).getStatsHour());
            assertNotNull(admin.viewBrokerStatsData(addr, "TOPIC_PUT_NUMS", topic).getStatsDay());
        } finally {
            c.shutdown();
        }
        refused(1, () -> admin.viewBrokerStatsData(addr, "TOPIC_PUT_NUMS", Cluster.name("Nothing")));
    }

    @Test
    public void writePermission() throws Exception {
        String topic = newTopic(1);
        int n = admin.wipeWritePermOfBroker(Cluster.NAMESRV, broker);
        try {
            assertTrue("" + n, n > 1);
            assertEquals(4, perm(topic));
        } finally {
            assertTrue(admin.addWritePermOfBroker(Cluster.NAMESRV, broker) >= n);
        }
        assertEquals(6, perm(topic));
    }

    @Test
    public void cleaning() throws Exception {
        String topic = newTopic(1);
        send(topic, 3);
        assertTrue(admin.cleanExpiredConsumerQueue(CLUSTER));
        assertTrue(admin.cleanExpiredConsumerQueueByAddr(addr));
        assertTrue(admin.cleanUnusedTopic(CLUSTER));
        assertTrue(admin.cleanUnusedTopicByAddr(addr));
        assertTrue(admin.deleteExpiredCommitLog(CLUSTER));
        assertTrue(admin.deleteExpiredCommitLogByAddr(addr));
        assertEquals(3, admin.maxOffset(new MessageQueue(topic, broker, 0)));
        assertEquals("m0", new String(admin.viewMessage(topic, send(topic, 1).get(0).getOffsetMsgId()).getBody(), StandardCharsets.UTF_8));
    }

    /** Requests that only the library of 5.x sends. */
    @Test
    public void newerRequests() throws Exception {
        String topic = newTopic(2);
        String group = Cluster.name("G");
        Cluster.Inbox box = new Cluster.Inbox();
        List<SendResult> sent = send(topic, 20);
        DefaultMQPushConsumer c = consume(group, topic, box);
        try {
            Cluster.await("20 messages", 60_000, () -> box.size() >= 20);
            Cluster.await("the group has committed", 30_000, () -> committed(group, topic) == 20);
            Object sub = newer("querySubscription", group, topic);
            assertEquals("T || U", get(sub, "getSubString"));
            assertTrue(((Set<?>) get(newer("queryTopicsByConsumer", group), "getTopicList")).contains(topic));
            assertTrue(((Number) newer("searchOffset", addr, topic, 0, 0L, 10_000L)).longValue() == 0);
        } finally {
            c.shutdown();
        }
        MessageQueue q = sent.get(0).getMessageQueue();
        newer("resetOffsetByQueueId", addr, group, topic, q.getQueueId(), 1L);
        Cluster.await("the reset by queue", 20_000, () -> {
            for (var e : admin.examineConsumeStats(group, topic).getOffsetTable().entrySet()) {
                if (e.getKey().equals(q)) {
                    return e.getValue().getConsumerOffset() == 1;
                }
            }
            return false;
        });

        Object forbidden = newer("updateAndGetGroupReadForbidden", addr, group, topic, Boolean.FALSE);
        assertEquals(Boolean.FALSE, get(forbidden, "getReadable"));
        assertEquals(Boolean.TRUE, get(newer("updateAndGetGroupReadForbidden", addr, group, topic, Boolean.TRUE), "getReadable"));

        String a = Cluster.name("List");
        String b = Cluster.name("List");
        newer("createAndUpdateTopicConfigList", addr, List.of(new TopicConfig(a, 3, 3, 6), new TopicConfig(b, 5, 5, 6)));
        assertEquals(3, admin.examineTopicConfig(addr, a).getWriteQueueNums());
        assertEquals(5, admin.examineTopicConfig(addr, b).getWriteQueueNums());
        var one = admin.examineSubscriptionGroupConfig(addr, group);
        one.setRetryMaxTimes(5);
        newer("createAndUpdateSubscriptionGroupConfigList", addr, Collections.singletonList(one));
        assertEquals(5, admin.examineSubscriptionGroupConfig(addr, group).getRetryMaxTimes());

        Object ha = newer("getBrokerHAStatus", addr);
        assertEquals(Boolean.TRUE, get(ha, "isMaster"));
        assertTrue(((Number) get(ha, "getMasterCommitLogMaxOffset")).longValue() > 0);
        Cluster.await("the route of " + a, 20_000, () -> perm(a) == 6);
        Object result = newer("deleteTopicInBrokerConcurrent", Collections.singleton(addr), a);
        assertEquals(String.valueOf(get(result, "getErrorMsg")), Boolean.TRUE, get(result, "isSuccess"));
        assertFalse(admin.getAllTopicConfig(addr, 10_000).getTopicConfigTable().containsKey(a));
    }
}
