package harness;

import java.util.List;

/** One line of JSON, built by hand: no escape is needed beyond quotes, controls and non-ASCII units. */
final class Json {
    private final StringBuilder b = new StringBuilder("{");

    private StringBuilder name(String name) {
        if (b.length() > 1) {
            b.append(',');
        }
        return quote(name).append(':');
    }

    Json put(String name, long value) {
        name(name).append(value);
        return this;
    }

    Json put(String name, String value) {
        name(name);
        quote(value);
        return this;
    }

    Json put(String name, List<?> values) {
        name(name).append('[');
        for (int i = 0; i < values.size(); i++) {
            if (i > 0) {
                b.append(',');
            }
            if (values.get(i) instanceof Number) {
                b.append(values.get(i));
            } else {
                quote(values.get(i).toString());
            }
        }
        b.append(']');
        return this;
    }

    String line() {
        return b + "}";
    }

    private StringBuilder quote(String s) {
        b.append('"');
        for (int i = 0; i < s.length(); i++) {
            char c = s.charAt(i);
            if (c == '"' || c == '\\') {
                b.append('\\').append(c);
            } else if (c < 0x20 || c > 0x7e) {
                b.append(String.format("\\u%04x", (int) c));
            } else {
                b.append(c);
            }
        }
        return b.append('"');
    }
}
