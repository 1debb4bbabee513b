package frames;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.OutputStreamWriter;
import java.io.PrintWriter;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.TreeMap;
import org.apache.rocketmq.common.MQVersion;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.RemotingSerializable;

/**
 * "encode" prints samples as lines of JSON; "decode" reads frames as lines of hexadecimal digits, without the length word, and
 * prints what RemotingCommand.decode made of each; "rewrite" reads lines of a class, a tab and a body, and prints the body as
 * RemotingSerializable writes it again after it read it. Libraries that chatter on standard output are kept away from both.
 */
public final class Main {
    private Main() {
    }

    public static void main(String[] args) throws Exception {
        PrintWriter out = new PrintWriter(new OutputStreamWriter(System.out, StandardCharsets.UTF_8), true);
        System.setOut(System.err);
        System.setProperty(RemotingCommand.REMOTING_VERSION_KEY, Integer.toString(MQVersion.CURRENT_VERSION));
        if (args[0].equals("encode")) {
            new Samples(out).all();
        } else if (args[0].equals("decode")) {
            decode(out);
        } else {
            rewrite(out);
        }
        out.flush();
        System.exit(0);
    }

    private static void decode(PrintWriter out) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            RemotingCommand c = RemotingCommand.decode(ByteBuffer.wrap(unhex(line)));
            StringBuilder s = new StringBuilder("{\"code\":").append(c.getCode())
                .append(",\"language\":").append(quote(c.getLanguage().name()))
                .append(",\"version\":").append(c.getVersion())
                .append(",\"opaque\":").append(c.getOpaque())
                .append(",\"flag\":").append(c.getFlag())
                .append(",\"remark\":").append(quote(c.getRemark()))
                .append(",\"ext\":{");
            String sep = "";
            if (c.getExtFields() != null) {
                for (java.util.Map.Entry<String, String> e : new TreeMap<>(c.getExtFields()).entrySet()) {
                    s.append(sep).append(quote(e.getKey())).append(':').append(quote(e.getValue()));
                    sep = ",";
                }
            }
            s.append("},\"body\":").append(c.getBody() == null ? "null" : quote(hex(c.getBody()))).append('}');
            out.println(s);
        }
    }

    private static void rewrite(PrintWriter out) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] parts = line.split("\t", 2);
            Object o = RemotingSerializable.decode(parts[1].getBytes(StandardCharsets.UTF_8), Class.forName(parts[0]));
            out.println(new String(RemotingSerializable.encode(o), StandardCharsets.UTF_8));
        }
    }

    static String hex(byte[] b) {
        StringBuilder s = new StringBuilder(2 * b.length);
        for (byte x : b) {
            s.append(String.format("%02x", x));
        }
        return s.toString();
    }

    private static byte[] unhex(String s) {
        byte[] b = new byte[s.length() / 2];
        for (int i = 0; i < b.length; i++) {
            b[i] = (byte) Integer.parseInt(s.substring(2 * i, 2 * i + 2), 16);
        }
        return b;
    }

    static String quote(String s) {
        if (s == null) {
            return "null";
        }
        StringBuilder q = new StringBuilder("\"");
        for (int i = 0; i < s.length(); i++) {
            char c = s.charAt(i);
            if (c < ' ' || c == '"' || c == '\\' || c > '~') {
                q.append(String.format("\\u%04x", (int) c));
            } else {
                q.append(c);
            }
        }
        return q.append('"').toString();
    }
}
