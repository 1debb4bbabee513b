package flow;

import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * Reads all of a topic with an unmodified push consumer: Read NAMESRV TOPIC GROUP [IDLE_SECONDS [WANT]].
 *
 * <p>One line a message, "GOT broker queue offset keys"; a group that has no offsets begins at the first message. It
 * ends with "END n" once WANT messages came, or none for IDLE_SECONDS (20), the first for a minute: a client that starts
 * while its brokers change waits for its next look at them. The property poll sets the interval at
 * which it asks for the route, in milliseconds, 30,000 as in every client unless set.
 */
public final class Read {
    private Read() {
    }

    public static void main(String[] args) throws Exception {
        long idle = args.length > 3 ? Long.parseLong(args[3]) * 1000 : 20_000;
        long want = args.length > 4 ? Long.parseLong(args[4]) : Long.MAX_VALUE;
        AtomicLong last = new AtomicLong(System.currentTimeMillis());
        AtomicLong got = new AtomicLong();
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(args[2]);
        consumer.setNamesrvAddr(args[0]);
        consumer.setPollNameServerInterval(Integer.getInteger("poll", 30_000));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(args[1], "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (msgs, context) -> {
            for (MessageExt m : msgs) {
                print("GOT " + context.getMessageQueue().getBrokerName() + " " + m.getQueueId() + " " + m.getQueueOffset() + " " + m.getKeys());
                got.incrementAndGet();
            }
            last.set(System.currentTimeMillis());
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        while (got.get() < want && System.currentTimeMillis() - last.get() < (got.get() == 0 ? Math.max(idle, 60_000) : idle)) {
            Thread.sleep(50);
        }
        consumer.shutdown();
        print("END " + got.get());
        System.exit(0);
    }

    private static synchronized void print(String line) {
        System.out.println(line);
        System.out.flush();
    }
}
