package config

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"unicode/utf16"
)

// Property is one line of a property file, continuation lines included.
type Property struct {
	Key, Value string
	Line       int // where it begins, from 1
}

const (
	blanks   = " \t\f"
	utf8Mark = "\xef\xbb\xbf"
)

// ParseProperties reads text the way java.util.Properties does: lines end in LF, CRLF or CR; # and !
// begin a comment; a backslash at the end continues a line; keys end at =, : or a blank; \t \n \r \f
// and \uXXXX are escapes, and a backslash before anything else vanishes. Blanks behind a value belong
// to it. A key may come more than once, and all of them are returned in order.
//
// Text is Latin-1, or UTF-8 where it begins with that byte order mark. A half of a surrogate pair
// becomes U+FFFD. The only errors are a \u without four hex digits, and UTF-16.
func ParseProperties(text []byte) ([]Property, error) {
	s, err := decode(text)
	if err != nil {
		return nil, err
	}
	var props []Property
	for first, line := range logicalLines(splitLines(s)) {
		p, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", first+1, err)
		}
		p.Line = first + 1
		props = append(props, p)
	}
	return props, nil
}

// splitLines cuts s after each LF, CRLF and CR.
func splitLines(s string) []string {
	var lines []string
	for s != "" {
		end := strings.IndexAny(s, "\r\n") + 1
		switch {
		case end == 0:
			end = len(s)
		case strings.HasPrefix(s[end-1:], "\r\n"):
			end++
		}
		lines, s = append(lines, s[:end]), s[end:]
	}
	return lines
}

// logicalLines yields the index of the first of the lines of each property, and what they say
// together. Nothing is yielded for comments and blank lines.
func logicalLines(lines []string) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		at := func(i int) string { return strings.TrimLeft(strings.TrimRight(lines[i], "\r\n"), blanks) }
		for i := 0; i < len(lines); i++ {
			line, first := at(i), i
			if line == "" || line[0] == '#' || line[0] == '!' {
				continue
			}
			var joined strings.Builder
			for continues(line) {
				joined.WriteString(line[:len(line)-1])
				if line = ""; i+1 < len(lines) {
					i++
					line = at(i)
				}
			}
			joined.WriteString(line)
			if joined.Len() > 0 && !yield(first, joined.String()) {
				return
			}
		}
	}
}

// Rewrite gives the text of a property file in which changes are written down: in the last place that
// sets a key, or at the end. All else stays as it is, byte for byte.
func Rewrite(text []byte, changes []Change) ([]byte, error) {
	props, err := ParseProperties(text)
	if err != nil {
		return nil, err
	}
	rest, marked := bytes.CutPrefix(text, []byte(utf8Mark))
	lines := splitLines(string(rest))
	var appended []byte
	for _, c := range changes {
		line := AppendProperty(nil, c.Key, c.New)
		last := -1
		for _, p := range props {
			if p.Key == c.Key {
				last = p.Line - 1
			}
		}
		if last < 0 {
			appended = append(appended, line...)
			continue
		}
		// The lines that continue it go with it.
		for i := last; ; i++ {
			more := i+1 < len(lines) && continues(strings.TrimRight(lines[i], "\r\n"))
			lines[i] = ""
			if !more {
				break
			}
		}
		lines[last] = string(line)
	}
	out := strings.Join(lines, "")
	if left := splitLines(out); len(left) > 0 && len(appended) > 0 {
		last := strings.TrimRight(left[len(left)-1], "\r\n")
		if last == left[len(left)-1] {
			out += "\n"
		}
		if continues(last) {
			out += "\n" // what follows would belong to it
		}
	}
	if marked {
		out = utf8Mark + out
	}
	return append([]byte(out), appended...), nil
}

func decode(text []byte) (string, error) {
	if rest, ok := bytes.CutPrefix(text, []byte(utf8Mark)); ok {
		return strings.ToValidUTF8(string(rest), "\uFFFD"), nil
	}
	if bytes.HasPrefix(text, []byte("\xfe\xff")) || bytes.HasPrefix(text, []byte("\xff\xfe")) {
		return "", errors.New("the text is UTF-16: save it as UTF-8 or Latin-1")
	}
	var b strings.Builder
	b.Grow(len(text))
	for _, c := range text {
		b.WriteRune(rune(c))
	}
	return b.String(), nil
}

// continues says whether an odd number of backslashes ends line.
func continues(line string) bool {
	return (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1
}

func parseLine(line string) (p Property, err error) {
	end := 0
	for end < len(line) && !strings.ContainsRune("=:"+blanks, rune(line[end])) {
		if line[end] == '\\' {
			end++
		}
		end++
	}
	end = min(end, len(line))
	value := strings.TrimLeft(line[end:], blanks)
	if value != "" && (value[0] == '=' || value[0] == ':') {
		value = strings.TrimLeft(value[1:], blanks)
	}
	if p.Key, err = unescape(line[:end]); err != nil {
		return p, err
	}
	p.Value, err = unescape(value)
	return p, err
}

func unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var units []uint16
	escaped := false
	for i, skip := 0, 0; i < len(s); i += skip {
		r, size := rune(s[i]), 1
		if r >= 0x80 {
			for _, r = range s[i:] {
				break
			}
			size = len(string(r))
		}
		skip = size
		switch {
		case !escaped && r == '\\':
			escaped = true
			continue
		case escaped && r == 'u':
			if len(s) < i+5 {
				return "", fmt.Errorf(`%q has fewer than four digits after \u`, s[i-1:])
			}
			u, err := strconv.ParseUint(s[i+1:i+5], 16, 16)
			if err != nil {
				return "", fmt.Errorf(`%q has no four hex digits after \u`, s[i-1:i+5])
			}
			units, skip = append(units, uint16(u)), 5
		case escaped:
			if at := strings.IndexRune("tnrf", r); at >= 0 {
				r = rune("\t\n\r\f"[at])
			}
			units = utf16.AppendRune(units, r)
		default:
			units = utf16.AppendRune(units, r)
		}
		escaped = false
	}
	return string(utf16.Decode(units)), nil
}

// AppendProperty appends one line from which [ParseProperties] reads key and value again. Everything
// beyond printable ASCII is escaped.
func AppendProperty(dst []byte, key, value string) []byte {
	dst = appendEscaped(dst, key, " =:#!")
	dst = append(dst, '=')
	if blank := strings.TrimLeft(value, " "); len(blank) < len(value) {
		dst = append(dst, '\\') // the first of the leading blanks keeps the others
	}
	dst = appendEscaped(dst, value, "")
	return append(dst, '\n')
}

func appendEscaped(dst []byte, s, special string) []byte {
	for _, r := range s {
		switch {
		case r == '\\' || strings.ContainsRune(special, r):
			dst = append(dst, '\\', byte(r))
		case r == '\t':
			dst = append(dst, `\t`...)
		case r == '\n':
			dst = append(dst, `\n`...)
		case r == '\r':
			dst = append(dst, `\r`...)
		case r == '\f':
			dst = append(dst, `\f`...)
		case r >= ' ' && r <= '~':
			dst = append(dst, byte(r))
		default:
			for _, u := range utf16.AppendRune(nil, r) {
				dst = fmt.Appendf(dst, `\u%04X`, u)
			}
		}
	}
	return dst
}
