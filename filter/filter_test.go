package filter

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rmq/internal/binenc"
)

func hash(tag string) int64 { return int64(binenc.StringHash(0, []byte(tag))) }

// Proves what the forms of a tag expression take, by hash and by text.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		text  string
		takes []string
		not   []string
		tags  []string
	}{
		{"", []string{"a", "", "订单"}, nil, nil},
		{"*", []string{"a", ""}, nil, nil},
		{"a", []string{"a"}, []string{"b", "", "*", "A"}, []string{"a"}},
		{" b || a||b ", []string{"a", "b"}, []string{"c", "b || a"}, []string{"a", "b"}},
		{"a ||", []string{"a"}, []string{""}, []string{"a"}},
		{"订单 || 😀", []string{"订单", "😀"}, []string{"x"}, []string{"订单", "😀"}},
		{"a || *", []string{"a", "*"}, []string{"b"}, []string{"*", "a"}},
	} {
		for _, typ := range []string{"", Tag} {
			e, err := Parse(typ, c.text)
			require.NoError(t, err, c.text)
			require.Equal(t, Tag, e.Type())
			require.Equal(t, c.tags, e.(*TagSet).Tags())
			require.Equal(t, len(c.tags) == 0, e.(*TagSet).TakesAll())
			for _, tag := range c.takes {
				require.True(t, e.MatchHash(hash(tag)), "%q takes the hash of %q", c.text, tag)
				require.True(t, e.Match([]byte(tag), nil), "%q takes %q", c.text, tag)
			}
			for _, tag := range c.not {
				require.False(t, e.Match([]byte(tag), nil), "%q takes %q", c.text, tag)
			}
		}
	}
}

// Proves that tags with one hash are told apart by their text, and that codes are Java's.
func TestCollision(t *testing.T) {
	s, err := ParseTags("Aa || TagA")
	require.NoError(t, err)
	require.True(t, s.MatchHash(hash("BB")), "Aa and BB have one hash in Java")
	require.False(t, s.Match([]byte("BB"), nil))
	require.Equal(t, []int32{2112, 2598919}, s.Codes())
	require.Equal(t, "Aa || TagA", s.String())
}

// Proves that what cannot be parsed says why in words a client can show.
func TestParseErrors(t *testing.T) {
	_, err := Parse(SQL92, "a > 1")
	var unsupported *UnsupportedError
	require.ErrorAs(t, err, &unsupported)
	require.Equal(t, SQL92, unsupported.Type)
	require.ErrorContains(t, err, "does not support")
	_, err = Parse("XPATH", "/a")
	require.ErrorAs(t, err, &unsupported)
	require.ErrorContains(t, err, `"XPATH"`)
	for _, text := range []string{"||", " ", " || || "} {
		_, err = Parse(Tag, text)
		var syntax *SyntaxError
		require.ErrorAs(t, err, &syntax, text)
		require.ErrorContains(t, err, "names no tag")
	}
}

// Proves that matching is free of allocations, for small and large sets.
func TestMatchAllocations(t *testing.T) {
	s, err := ParseTags("a || b || c || d || e || f || g || h")
	require.NoError(t, err)
	var e Expression = s
	tag := []byte("h")
	h := hash("h")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if !e.MatchHash(h) || !e.Match(tag, nil) {
			panic("no match")
		}
	}))
}

// Every expression that parses takes each of its tags, and parses again from its own text.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "*", "a || b", "||", "a|b", "a || a", "\x00||\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseTags(text)
		if err != nil {
			if strings.Trim(text, "| \t\r\n\v\f\u0085\u00a0") != "" && !strings.ContainsFunc(text, func(r rune) bool { return r > 127 }) {
				t.Fatal(err)
			}
			return
		}
		for _, tag := range s.Tags() {
			if !s.Match([]byte(tag), nil) || !s.MatchHash(hash(tag)) {
				t.Fatalf("%q does not take its own %q", text, tag)
			}
		}
		again, err := ParseTags(s.String())
		if err != nil || strings.Join(again.Tags(), "\n") != strings.Join(s.Tags(), "\n") {
			t.Fatalf("%q parses as %q again: %v", text, again, err)
		}
	})
}
