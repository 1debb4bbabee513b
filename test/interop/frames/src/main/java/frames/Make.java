package frames;

import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import org.apache.rocketmq.remoting.CommandCustomHeader;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;

/** Makes objects of the client's classes by name, since 4.9 and 5.x have them in different packages. */
final class Make {
    private static final String[] PACKAGES = {
        "org.apache.rocketmq.remoting.protocol.", "org.apache.rocketmq.common.protocol.", "org.apache.rocketmq.common.",
        "org.apache.rocketmq.common.admin.", "org.apache.rocketmq.remoting.protocol.admin.", "org.apache.rocketmq.common.subscription.",
        "org.apache.rocketmq.remoting.protocol.subscription.", "org.apache.rocketmq.remoting."};

    private Make() {
    }

    static Class<?> type(String name) throws ClassNotFoundException {
        for (String p : PACKAGES) {
            try {
                return Class.forName(p + name);
            } catch (ClassNotFoundException e) {
                continue;
            }
        }
        throw new ClassNotFoundException(name);
    }

    static boolean has(String name) {
        try {
            type(name);
            return true;
        } catch (ClassNotFoundException e) {
            return false;
        }
    }

    /** An object of the class, with members set; pairs are name, value. A name with ? is left out where the class has no such member. */
    static Object of(String name, Object... pairs) throws Exception {
        Constructor<?> c = type(name).getDeclaredConstructor();
        c.setAccessible(true);
        return fill(c.newInstance(), pairs);
    }

    static Object fill(Object o, Object... pairs) throws Exception {
        for (int i = 0; i < pairs.length; i += 2) {
            set(o, (String) pairs[i], pairs[i + 1]);
        }
        return o;
    }

    private static void set(Object o, String name, Object value) throws Exception {
        boolean optional = name.startsWith("?");
        if (optional) {
            name = name.substring(1);
        }
        for (Class<?> c = o.getClass(); c != null; c = c.getSuperclass()) {
            try {
                Field f = c.getDeclaredField(name);
                f.setAccessible(true);
                f.set(o, convert(f.getType(), value));
                return;
            } catch (NoSuchFieldException e) {
                continue;
            }
        }
        if (!optional) {
            throw new NoSuchFieldException(o.getClass().getName() + "." + name);
        }
    }

    @SuppressWarnings({"unchecked", "rawtypes"})
    private static Object convert(Class<?> type, Object value) {
        if (type.isEnum() && value instanceof String) {
            return Enum.valueOf((Class<? extends Enum>) type, (String) value);
        }
        return value;
    }

    /** The number of a constant of RequestCode or ResponseCode. */
    static int code(String cls, String name) throws Exception {
        for (Class<?> c = type(cls); c != null; c = c.getSuperclass()) {
            try {
                return c.getDeclaredField(name).getInt(null);
            } catch (NoSuchFieldException e) {
                continue;
            }
        }
        throw new NoSuchFieldException(cls + "." + name);
    }

    static RemotingCommand request(String code, Object header) throws Exception {
        return RemotingCommand.createRequestCommand(code("RequestCode", code), (CommandCustomHeader) header);
    }

    @SuppressWarnings("unchecked")
    static RemotingCommand response(String code, String remark, String header, Object... pairs) throws Exception {
        RemotingCommand c;
        if (header == null) {
            c = RemotingCommand.createResponseCommand(code("ResponseCode", code), remark);
        } else {
            c = RemotingCommand.createResponseCommand((Class<? extends CommandCustomHeader>) type(header));
            c.setCode(code("ResponseCode", code));
            c.setRemark(remark);
            fill(c.readCustomHeader(), pairs);
        }
        return c;
    }

    static Object call(Object o, String method, Object... args) throws Exception {
        for (Method m : (o instanceof Class ? (Class<?>) o : o.getClass()).getMethods()) {
            if (m.getName().equals(method) && m.getParameterCount() == args.length) {
                m.setAccessible(true);
                return m.invoke(o instanceof Class ? null : o, args);
            }
        }
        throw new NoSuchMethodException(method);
    }
}
