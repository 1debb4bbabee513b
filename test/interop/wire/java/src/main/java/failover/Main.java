package failover;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;

/**
 * Sends what it reads with an unmodified producer, asynchronously: Main NAMESRV. It prints "READY", and for every line
 * "ID TOPIC BODY-IN-BASE64" either "ID OK" or "ID ERR why". It ends with its input. {@code rmqbench failover} drives it.
 */
public final class Main {
    private Main() {
    }

    public static void main(String[] args) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("rmqbench-failover-java");
        producer.setNamesrvAddr(args[0]);
        producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE); // bodies are compared with what was sent
        producer.start();
        print("READY");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] f = line.split(" ");
            try {
                producer.send(new Message(f[1], Base64.getDecoder().decode(f[2])), new SendCallback() {
                    @Override
                    public void onSuccess(SendResult r) {
                        print(f[0] + (r.getSendStatus() == SendStatus.SEND_OK ? " OK" : " ERR " + r.getSendStatus()));
                    }

                    @Override
                    public void onException(Throwable e) {
                        print(f[0] + " ERR " + String.valueOf(e).replace('\n', ' '));
                    }
                });
            } catch (Exception e) {
                print(f[0] + " ERR " + String.valueOf(e).replace('\n', ' '));
            }
        }
        producer.shutdown();
        System.exit(0);
    }

    private static synchronized void print(String line) {
        System.out.println(line);
        System.out.flush();
    }
}
