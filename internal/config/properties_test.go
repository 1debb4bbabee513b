package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

// Proves that files read as java.util.Properties reads them.
func TestParseProperties(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []Property
	}{
		{"empty", "", nil},
		{"separators", "a=1\nb:2\nc 3\nd\t = 4\ne\n", []Property{{"a", "1", 1}, {"b", "2", 2}, {"c", "3", 3}, {"d", "4", 4}, {"e", "", 5}}},
		{"only the first separates", "a==1\nb=:2\nc = = 3", []Property{{"a", "=1", 1}, {"b", ":2", 2}, {"c", "= 3", 3}}},
		{"comments", "# a=1\n  ! b=2\n#c \\\nd=4#5\n", []Property{{"d", "4#5", 4}}},
		{"line ends", "a=1\r\nb=2\rc=3\n\n\r\nd=4", []Property{{"a", "1", 1}, {"b", "2", 2}, {"c", "3", 3}, {"d", "4", 6}}},
		{"continued", "a=1,\\\n   2,\\\r\n\t3\nb=4", []Property{{"a", "1,2,3", 1}, {"b", "4", 4}}},
		{"a blank line ends it", "a=1\\\n\nb=2", []Property{{"a", "1", 1}, {"b", "2", 3}}},
		{"no comment inside", "a=1\\\n#2", []Property{{"a", "1#2", 1}}},
		{"even backslashes", `a=1\\` + "\nb=2", []Property{{"a", `1\`, 1}, {"b", "2", 2}}},
		{"odd backslashes", `a=1\\\` + "\n2", []Property{{"a", `1\2`, 1}}},
		{"continued into nothing", "a=1\\", []Property{{"a", "1", 1}}},
		{"nothing but continuation", "\\\n\\\n\n", nil},
		{"key over two lines", "lis\\\n  ten=1", []Property{{"listen", "1", 1}}},
		{"escapes", `a\=b\:c\ d=\t\n\r\f\q\"\\`, []Property{{"a=b:c d", "\t\n\r\fq\"\\", 1}}},
		{"unicode", `a=\u4E2d\u6587\uD83D\uDE00\uD83Dx`, []Property{{"a", "中文😀\uFFFDx", 1}}},
		{"unicode key", `\u0061=1`, []Property{{"a", "1", 1}}},
		{"latin-1", "a=\xe9\nb=\xe9\\t\xff", []Property{{"a", "é", 1}, {"b", "é\tÿ", 2}}},
		{"UTF-8 without its mark", "a=é", []Property{{"a", "Ã©", 1}}},
		{"UTF-8 with its mark", "\xef\xbb\xbfa=é\\u00e9\n", []Property{{"a", "éé", 1}}},
		{"blanks behind", "a = 1 \t\nb=2\f\n", []Property{{"a", "1 \t", 1}, {"b", "2\f", 2}}},
		{"twice", "a=1\na=2", []Property{{"a", "1", 1}, {"a", "2", 2}}},
		{"no key", "=1\n", []Property{{"", "1", 1}}},
		{"quotes stay", `a="1"`, []Property{{"a", `"1"`, 1}}},
		{"no expansion", "a=${HOME}", []Property{{"a", "${HOME}", 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseProperties([]byte(c.text))
			require.NoError(t, err)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// Proves that what is no property file says so, with its line.
func TestParsePropertiesErrors(t *testing.T) {
	for text, want := range map[string]string{
		"a=1\nb=\\u12":    `line 2: "\\u12" has fewer than four digits after \u`,
		"a=\\u12g4":       `line 1: "\\u12g4" has no four hex digits after \u`,
		"a=\\u+123":       `line 1: "\\u+123" has no four hex digits after \u`,
		"\xff\xfea\x00=1": "the text is UTF-16: save it as UTF-8 or Latin-1",
	} {
		_, err := ParseProperties([]byte(text))
		require.EqualError(t, err, want)
	}
}

// Proves that a long chain of continued lines is read in one pass.
func TestParsePropertiesLong(t *testing.T) {
	got, err := ParseProperties([]byte("a=" + strings.Repeat("x\\\n", 1<<20)))
	require.NoError(t, err)
	require.Len(t, got, 1)
	require.Len(t, got[0].Value, 1<<20)
}

// Proves that a change is written where the key stands, and that nothing else moves.
func TestRewrite(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "k=new\n"},
		{"in place", "# about k\r\n k : old # no comment\r\nb=2", "# about k\r\nk=new\nb=2"},
		{"over lines", "k=old,\\\n  more,\\\n  and more\nb=2\n", "k=new\nb=2\n"},
		{"the last counts", "k=1\nk=2\n", "k=1\nk=new\n"},
		{"at the end", "b=2\n", "b=2\nk=new\n"},
		{"at an end without newline", "b=2", "b=2\nk=new\n"},
		{"at an end that goes on", "b=2\\", "b=2\\\n\nk=new\n"},
		{"at an end that goes on into nothing", "b=2\\\r\n", "b=2\\\r\n\nk=new\n"},
		{"with a mark", "\xef\xbb\xbfk=é\nb=é", "\xef\xbb\xbfk=new\nb=é"},
		{"latin-1", "b=\xe9\rk=1", "b=\xe9\rk=new\n"},
		{"not a comment", "#k=1\n", "#k=1\nk=new\n"},
	} {
		got, err := Rewrite([]byte(c.text), []Change{{Key: "k", New: "new"}})
		require.NoError(t, err)
		require.Equal(t, c.want, string(got), c.name)
	}
	_, err := Rewrite([]byte(`a=\u`), nil)
	require.Error(t, err)
}

// Proves that what was rewritten reads as what was there with the change made.
func FuzzRewrite(f *testing.F) {
	f.Add([]byte("a=1\r\n# b\nb=2\\\n 3\na=4"), "a", "x y")
	f.Add([]byte("\xef\xbb\xbfk=\\"), "b", " ")
	f.Fuzz(func(t *testing.T, text []byte, key, value string) {
		key, value = strings.ToValidUTF8(key, ""), strings.ToValidUTF8(value, "")
		want, err := ParseProperties(text)
		if err != nil {
			return
		}
		at := len(want)
		for i, p := range want {
			if p.Key == key {
				at = i
			}
		}
		if at == len(want) {
			want = append(want, Property{})
		}
		want[at] = Property{Key: key, Value: value}
		text, err = Rewrite(text, []Change{{Key: key, New: value}})
		require.NoError(t, err)
		got, err := ParseProperties(text)
		require.NoError(t, err)
		for i := range want {
			want[i].Line = 0
		}
		for i := range got {
			got[i].Line = 0
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q: %s", text, d)
		}
	})
}

// Proves that no text makes the reader panic, and that what it read can be written and read again.
func FuzzParseProperties(f *testing.F) {
	f.Add([]byte("# c\na=1\r\nb : \"x;y\" \\\n  z\nc\\ d=\\u4e2d\\t"))
	f.Add([]byte("\xef\xbb\xbfa=é\n!x\n\\\n\n=\\ud83d\\ude00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		props, err := ParseProperties(text)
		if err != nil {
			return
		}
		var printed []byte
		for i, p := range props {
			printed = AppendProperty(printed, p.Key, p.Value)
			props[i].Line = i + 1
		}
		for _, c := range printed {
			require.True(t, c == '\n' || c >= ' ' && c <= '~', "%q", printed)
		}
		again, err := ParseProperties(printed)
		require.NoError(t, err)
		if d := cmp.Diff(props, again); d != "" {
			t.Errorf("%q: %s", printed, d)
		}
	})
}
