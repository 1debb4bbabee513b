package suite;

import org.junit.runner.Description;
import org.junit.runner.JUnitCore;
import org.junit.runner.Request;
import org.junit.runner.Result;
import org.junit.runner.manipulation.Filter;
import org.junit.runner.notification.Failure;
import org.junit.runner.notification.RunListener;

/** Runs the suite against -Dnamesrv and prints one line a test: "PASS name" or "FAIL name: why". */
public final class Main {
    private Main() {
    }

    public static void main(String[] args) {
        JUnitCore core = new JUnitCore();
        core.addListener(new RunListener() {
            private Failure failed;
            private long began;

            @Override
            public void testStarted(Description d) {
                failed = null;
                began = System.currentTimeMillis();
            }

            @Override
            public void testFailure(Failure f) {
                failed = f;
                if (f.getDescription().isSuite()) {
                    System.out.println("FAIL " + f.getDescription() + ": " + f.getTrace().replace("\n", " | "));
                }
            }

            @Override
            public void testFinished(Description d) {
                String name = d.getTestClass().getSimpleName() + "." + d.getMethodName();
                long took = System.currentTimeMillis() - began;
                if (failed == null) {
                    System.out.println("PASS " + name + " " + took + " ms");
                } else {
                    System.out.println("FAIL " + name + " " + took + " ms: " + failed.getTrace().replace("\n", " | "));
                }
            }
        });
        Request all = Request.classes(SendTest.class, ConsumeTest.class, AdminTest.class);
        if (args.length > 0) {
            all = all.filterWith(new Filter() {
                @Override
                public boolean shouldRun(Description d) {
                    if (d.isSuite()) {
                        return true;
                    }
                    for (String a : args) {
                        if (a.equals(d.getMethodName())) {
                            return true;
                        }
                    }
                    return false;
                }

                @Override
                public String describe() {
                    return String.join(" ", args);
                }
            });
        }
        Result r = core.run(all);
        System.out.println("END " + r.getRunCount() + " run, " + r.getFailureCount() + " failed");
        System.exit(r.wasSuccessful() ? 0 : 1);
    }
}
