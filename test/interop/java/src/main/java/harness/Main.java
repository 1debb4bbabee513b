package harness;

import java.io.BufferedOutputStream;
import java.io.File;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.config.FlushDiskType;
import org.apache.rocketmq.store.config.MessageStoreConfig;

/**
 * Opens one store directory, does the named actions in order, and stops it the clean way.
 *
 * <pre>
 * Main DIR [option=value ...] ACTION ...
 * Main vectors
 * actions  put=N     N messages or batches, a line for each record
 *          forever   the same until killed, lines flushed as they come
 *          dump      everything that the store answers
 *          sleep=MS
 * options  segment queuefile slots entries seed topics queues body   numbers
 *          flush=sync  v2=true  propcrc=true  pause=N (a short rest after every N puts)
 * </pre>
 * Lines of JSON go to standard output; whatever else is printed goes to standard error.
 */
public final class Main {
    private Main() {
    }

    public static void main(String[] args) throws Exception {
        PrintStream out = new PrintStream(new BufferedOutputStream(new FileOutputStream(FileDescriptor.out), 1 << 16), false, "UTF-8");
        System.setOut(System.err);
        int status = 0;
        try {
            if (args.length == 1 && args[0].equals("vectors")) {
                Vectors.lines().forEach(out::println);
            } else {
                run(args, out);
            }
        } catch (Throwable t) {
            t.printStackTrace();
            status = 1;
        }
        out.flush();
        Runtime.getRuntime().halt(status); // the store leaves threads behind
    }

    private static void run(String[] args, PrintStream out) throws Exception {
        Map<String, String> options = new HashMap<>();
        List<String> actions = new ArrayList<>();
        for (int i = 1; i < args.length; i++) {
            int eq = args[i].indexOf('=');
            String name = eq < 0 ? args[i] : args[i].substring(0, eq);
            if (name.equals("put") || name.equals("sleep") || name.equals("dump") || name.equals("forever")) {
                actions.add(args[i]);
            } else {
                options.put(name, args[i].substring(eq + 1));
            }
        }
        MessageStoreConfig config = new MessageStoreConfig();
        config.setStorePathRootDir(args[0]);
        config.setStorePathCommitLog(args[0] + File.separator + "commitlog");
        config.setMappedFileSizeCommitLog(number(options, "segment", 1 << 20));
        config.setMappedFileSizeConsumeQueue(number(options, "queuefile", 2000));
        config.setMaxHashSlotNum(number(options, "slots", 500));
        config.setMaxIndexNum(number(options, "entries", 1000));
        config.setHaListenPort(0);
        config.setDiskMaxUsedSpaceRatio(95);
        config.setCleanFileForciblyEnable(false);
        if ("sync".equals(options.get("flush"))) {
            config.setFlushDiskType(FlushDiskType.SYNC_FLUSH);
        }
        Line.options(config, options);
        DefaultMessageStore store = Line.newStore(config);
        if (!store.load()) {
            throw new IllegalStateException("load refused " + args[0]);
        }
        store.start();
        Line.started(store);
        Workload workload = new Workload(store, options);
        int pause = number(options, "pause", 50);
        for (String action : actions) {
            String value = action.substring(action.indexOf('=') + 1);
            switch (action.replaceAll("=.*", "")) {
                case "put":
                    for (int i = 1; i <= Integer.parseInt(value); i++) {
                        workload.next().forEach(out::println);
                        rest(i, pause);
                    }
                    break;
                case "forever":
                    for (int i = 1; ; i++) {
                        workload.next().forEach(out::println);
                        out.flush();
                        rest(i, pause);
                    }
                case "dump":
                    while (store.dispatchBehindBytes() > 0) {
                        Thread.sleep(1);
                    }
                    new Dump(store, out).run();
                    break;
                default:
                    Thread.sleep(Long.parseLong(value));
            }
            out.flush();
        }
        store.shutdown();
        out.println(new Json().put("op", "stopped").line());
    }

    /** Store times must differ here and there, and now and then by more than a second. */
    private static void rest(int i, int pause) throws InterruptedException {
        if (pause > 0 && i % pause == 0) {
            Thread.sleep(i % (pause * 20) == 0 ? 600 : 3);
        }
    }

    private static int number(Map<String, String> options, String name, int otherwise) {
        return Integer.parseInt(options.getOrDefault(name, Integer.toString(otherwise)));
    }
}
