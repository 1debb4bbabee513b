package flow;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;

/**
 * Sends to a topic with an unmodified producer, one message after the other: Write NAMESRV TOPIC PREFIX COUNT
 * [PAUSE_MS [BODY_BYTES]].
 *
 * <p>Keys are PREFIX-0, PREFIX-1 and so on. One line a message, "ACK millis status key" or "ERR millis key why", then
 * "END". It also ends with its input. The property poll is as in {@link Read}.
 */
public final class Write {
    private Write() {
    }

    public static void main(String[] args) throws Exception {
        int count = Integer.parseInt(args[3]);
        long pause = args.length > 4 ? Long.parseLong(args[4]) : 0;
        byte[] pad = new byte[args.length > 5 ? Integer.parseInt(args[5]) : 16];
        Arrays.fill(pad, (byte) '.');
        DefaultMQProducer producer = new DefaultMQProducer("Writers");
        producer.setNamesrvAddr(args[0]);
        producer.setPollNameServerInterval(Integer.getInteger("poll", 30_000));
        producer.start();
        for (int i = 0; i < count && System.in.available() == 0; i++) {
            String key = args[2] + "-" + i;
            byte[] body = pad.clone();
            byte[] name = key.getBytes(StandardCharsets.UTF_8);
            System.arraycopy(name, 0, body, 0, Math.min(name.length, body.length));
            Message m = new Message(args[1], "T", key, body);
            long begin = System.currentTimeMillis();
            try {
                SendResult r = producer.send(m);
                System.out.println("ACK " + (System.currentTimeMillis() - begin) + " " + r.getSendStatus() + " " + key);
            } catch (Exception e) {
                System.out.println("ERR " + (System.currentTimeMillis() - begin) + " " + key + " " + String.valueOf(e).replace('\n', ' '));
            }
            System.out.flush();
            Thread.sleep(pause);
        }
        producer.shutdown();
        System.out.println("END");
        System.exit(0);
    }
}
