package protocol

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// parseJSON reads a header that is a JSON object, members in any order, unknown ones skipped.
func (c *Command) parseJSON(b []byte) error {
	s := scanner{b: b, mem: c.scratch}
	s.open()
	for first := true; s.member(first); first = false {
		switch key := s.text(); string(key) {
		case "code":
			c.Code = s.value32()
		case "language":
			c.Language = s.language()
		case "version":
			c.Version = s.value32()
		case "opaque":
			c.Opaque = s.value32()
		case "flag":
			c.Flag = s.value32()
		case "remark":
			c.Remark, _ = s.textValue()
		case "extFields":
			c.Ext = s.fields(c.Ext)
		default:
			s.colon()
			s.skip()
		}
	}
	s.end()
	c.scratch = s.mem
	if s.why != "" {
		err := ErrMalformed
		if s.i >= len(b) {
			err = ErrTruncated
		}
		return &FrameError{"header", 4 + s.i, s.why, err}
	}
	return nil
}

// scanner walks over a JSON text in place. Once why is set it stands still at i, where b then ends.
type scanner struct {
	b   []byte
	i   int
	mem []byte // texts that had escapes
	why string
}

func (s *scanner) fail(why string) {
	if s.why == "" {
		s.why, s.b = why, s.b[:min(s.i, len(s.b))]
	}
}

// peek skips blanks and gives the next byte; 0 at the end and after a failure.
func (s *scanner) peek() byte {
	if s.i < len(s.b) && s.b[s.i] > ' ' {
		return s.b[s.i]
	}
	return s.peekFar()
}

func (s *scanner) peekFar() byte {
	for s.i < len(s.b) {
		switch ch := s.b[s.i]; ch {
		case ' ', '\t', '\r', '\n':
			s.i++
		case 0:
			s.fail("a zero byte")
		default:
			return ch
		}
	}
	return 0
}

func (s *scanner) expect(ch byte, why string) {
	if s.peek() != ch {
		s.fail(why)
		return
	}
	s.i++
}

func (s *scanner) open()  { s.expect('{', "an object must begin here") }
func (s *scanner) colon() { s.expect(':', "a colon must follow a name") }

// member steps to the next name of an object; false behind its last.
func (s *scanner) member(first bool) bool {
	if b, i := s.b, s.i; !first && len(b)-i > 1 && b[i] == ',' && b[i+1] == '"' {
		s.i++
		return true
	}
	switch ch := s.peek(); {
	case ch == '}':
		s.i++
		return false
	case first && ch == '"':
		return true
	case !first && ch == ',':
		s.i++
		if s.peek() == '"' {
			return true
		}
	}
	s.fail("an object must go on with a name or end here")
	return false
}

func (s *scanner) end() {
	if s.peek() != 0 || s.why == "" && s.i < len(s.b) {
		s.fail("bytes behind the header object")
	}
}

// null eats a null.
func (s *scanner) null() bool {
	if s.peek() == 'n' && len(s.b)-s.i >= 4 && string(s.b[s.i:s.i+4]) == "null" {
		s.i += 4
		return true
	}
	return false
}

// text reads a string; what it returns aliases b or mem.
func (s *scanner) text() []byte {
	s.expect('"', "a string must begin here")
	if s.why != "" {
		return nil
	}
	start := s.i
	i := s.plain(start)
	if i < len(s.b) && s.b[i] == '"' {
		s.i = i + 1
		return s.b[start:i:i]
	}
	return s.escaped(start, i)
}

// plain is the place of the next quote or backslash from i on, or the end.
func (s *scanner) plain(i int) int {
	b := s.b
	for i < len(b) && b[i] != '"' && b[i] != '\\' {
		i++
	}
	return i
}

// escaped goes on with a string that began at start and has its first backslash at i.
func (s *scanner) escaped(start, i int) []byte {
	at := len(s.mem)
	for {
		s.mem = append(s.mem, s.b[start:i]...)
		if i >= len(s.b) {
			s.i = i
			s.fail("a string does not end")
			return nil
		}
		if s.b[i] == '"' {
			s.i = i + 1
			return s.mem[at:len(s.mem):len(s.mem)]
		}
		if start = s.escape(i + 1); s.why != "" {
			return nil
		}
		i = s.plain(start)
	}
}

// escape resolves the escape whose letter is at i into mem and says where the string goes on.
func (s *scanner) escape(i int) int {
	if i >= len(s.b) {
		s.i = i
		s.fail("a string does not end")
		return i
	}
	ch := s.b[i]
	switch ch {
	case 'u':
		return s.unicode(i + 1)
	case '"', '\\', '/', '\'':
	case 'b':
		ch = '\b'
	case 'f':
		ch = '\f'
	case 'n':
		ch = '\n'
	case 'r':
		ch = '\r'
	case 't':
		ch = '\t'
	case 'v':
		ch = '\v'
	default:
		s.i = i
		s.fail("an unknown escape")
	}
	s.mem = append(s.mem, ch)
	return i + 1
}

// unicode resolves four digits at i, and the second half of a pair behind them; a half alone is U+FFFD.
func (s *scanner) unicode(i int) int {
	r, ok := hex4(s.b[i:])
	switch {
	case !ok:
		s.i = i
		s.fail("\\u needs four hexadecimal digits")
		return i
	case r < utf8.RuneSelf:
		s.mem = append(s.mem, byte(r))
		return i + 4
	}
	i += 4
	if utf16.IsSurrogate(r) {
		low := rune(0)
		if len(s.b)-i >= 6 && s.b[i] == '\\' && s.b[i+1] == 'u' {
			low, _ = hex4(s.b[i+2:])
		}
		if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
			i += 6
		}
	}
	s.mem = utf8.AppendRune(s.mem, r)
	return i
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, ch := range b[:4] {
		switch {
		case ch >= '0' && ch <= '9':
			r = r<<4 | rune(ch-'0')
		case ch >= 'a' && ch <= 'f':
			r = r<<4 | rune(ch-'a'+10)
		case ch >= 'A' && ch <= 'F':
			r = r<<4 | rune(ch-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// textValue reads a colon and a value as text: a string, or the letters of a number, a boolean or a
// nested value as they stand; ok is false for null.
func (s *scanner) textValue() (text []byte, ok bool) {
	s.colon()
	if s.null() {
		return nil, false
	}
	if s.peek() == '"' {
		text = s.text()
		return text, s.why == ""
	}
	start := s.i
	s.skip()
	if s.why != "" {
		return nil, false
	}
	return s.b[start:s.i:s.i], true
}

// value32 reads a colon and a number of 32 bits, bare or in quotes; null is 0.
func (s *scanner) value32() int32 {
	if n, ok := s.short(); ok {
		return n
	}
	at := s.i
	text, ok := s.textValue()
	if !ok {
		return 0
	}
	n, ok := parseInt(text, 32)
	if !ok {
		s.i = at
		s.fail("a number of 32 bits must stand here")
	}
	return int32(n)
}

// short reads a colon and a number of one to nine digits, as all clients write almost all; false means that
// it is another one, and nothing was read.
func (s *scanner) short() (n int32, ok bool) {
	b := s.b[min(s.i, len(s.b)):]
	if len(b) == 0 || b[0] != ':' {
		return 0, false
	}
	for i := 1; i < min(len(b), 11); i++ {
		d := b[i] - '0'
		if d <= 9 {
			n = n*10 + int32(d)
			continue
		}
		if i == 1 || b[i] != ',' && b[i] != '}' {
			break
		}
		s.i += i
		return n, true
	}
	return 0, false
}

func (s *scanner) language() Language {
	text, ok := s.textValue()
	if !ok {
		return Java
	}
	if n, ok := parseInt(text, 32); ok {
		return languageOf(n)
	}
	return parseLanguage(text)
}

// fields reads a colon and the ext map; entries that are null are as if they were not there.
func (s *scanner) fields(dst []Field) []Field {
	dst = dst[:0]
	s.colon()
	if s.null() {
		return dst
	}
	s.open()
	for first := true; s.member(first); first = false {
		dst = append(dst, Field{})
		f := &dst[len(dst)-1]
		if s.pair(f) {
			continue
		}
		ok := false
		f.Key = s.text()
		if f.Value, ok = s.textValue(); !ok {
			dst = dst[:len(dst)-1]
		}
	}
	return dst
}

// pair reads "name":"value" as all clients write it, at a quote; false means that it is written in another
// way, and nothing was read, or that it cannot be read.
func (s *scanner) pair(f *Field) bool {
	b, key := s.b, s.i+1
	i := s.plain(key)
	if len(b)-i < 3 || b[i] != '"' || b[i+1] != ':' || b[i+2] != '"' {
		return false
	}
	f.Key = b[key:i:i]
	value := i + 3
	if i = s.plain(value); i < len(b) && b[i] == '"' {
		s.i = i + 1
		f.Value = b[value:i:i]
		return true
	}
	f.Value = s.escaped(value, i)
	return s.why == ""
}

// skip steps over one value of any kind.
func (s *scanner) skip() {
	switch ch := s.peek(); ch {
	case '{', '[':
		s.skipNested()
	case '"':
		s.skipText()
	default:
		start := s.i
		for s.why == "" && s.i < len(s.b) && isBare(s.b[s.i]) {
			s.i++
		}
		if s.i == start {
			s.fail("a value must stand here")
		}
	}
}

// isBare says which bytes numbers, true, false and null are made of.
func isBare(ch byte) bool {
	return ch >= '0' && ch <= '9' || ch >= 'a' && ch <= 'z' || ch >= 'A' && ch <= 'Z' || ch == '-' || ch == '+' || ch == '.'
}

func (s *scanner) skipText() {
	for s.i++; s.i < len(s.b); s.i++ {
		switch s.b[s.i] {
		case '\\':
			s.i++
		case '"':
			s.i++
			return
		}
	}
	s.i = len(s.b)
	s.fail("a string does not end")
}

// skipNested steps over an object or array by counting brackets, however deep.
func (s *scanner) skipNested() {
	for depth := 0; s.why == "" && s.i < len(s.b); {
		switch s.b[s.i] {
		case '"':
			s.skipText()
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		s.i++
		if depth == 0 {
			return
		}
	}
	s.fail("a nested value does not end")
}

// parseInt reads a decimal number of at most bits bits, with an optional sign and nothing else.
func parseInt(b []byte, bits uint) (int64, bool) {
	neg := false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		neg, b = b[0] == '-', b[1:]
	}
	if len(b) == 0 {
		return 0, false
	}
	limit := uint64(1)<<(bits-1) - 1
	if neg {
		limit++
	}
	var n uint64
	for _, ch := range b {
		d := uint64(ch - '0')
		if d > 9 || n > limit/10 {
			return 0, false
		}
		if n = n*10 + d; n > limit {
			return 0, false
		}
	}
	if neg {
		return -int64(n), true
	}
	return int64(n), true
}

// The members are in Java's order, the alphabet's.
func (c *Command) appendJSON(dst []byte) []byte {
	dst = appendJSONStart(dst, c.Code)
	if len(c.Ext) > 0 {
		sep := `,"extFields":{`
		for _, f := range c.Ext {
			dst = append(dst, sep...)
			dst = appendQuoted(dst, f.Key)
			dst = append(dst, ':')
			dst = appendQuoted(dst, f.Value)
			sep = ","
		}
		dst = append(dst, '}')
	}
	return appendJSONEnd(dst, c.Language, c.Version, c.Opaque, c.Flag, c.Remark)
}

func appendJSONStart(dst []byte, code int32) []byte {
	return strconv.AppendInt(append(dst, `{"code":`...), int64(code), 10)
}

func appendJSONEnd[T ~[]byte | ~string](dst []byte, lang Language, version, opaque, flag int32, remark T) []byte {
	dst = append(dst, `,"flag":`...)
	dst = strconv.AppendInt(dst, int64(flag), 10)
	dst = append(dst, `,"language":"`...)
	dst = append(dst, lang.String()...)
	dst = append(dst, `","opaque":`...)
	dst = strconv.AppendInt(dst, int64(opaque), 10)
	if len(remark) > 0 {
		dst = append(dst, `,"remark":`...)
		dst = appendQuoted(dst, remark)
	}
	dst = append(dst, `,"serializeTypeCurrentRPC":"JSON","version":`...)
	dst = strconv.AppendInt(dst, int64(version), 10)
	return append(dst, '}')
}

const hexUpper = "0123456789ABCDEF"

// appendQuoted appends text as a JSON string. What is no UTF-8 becomes U+FFFD, as in Java.
func appendQuoted[T ~[]byte | ~string](dst []byte, text T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(text); {
		ch := text[i]
		if ch >= ' ' && ch < utf8.RuneSelf && ch != '"' && ch != '\\' {
			i++
			continue
		}
		size := 1
		if ch >= utf8.RuneSelf {
			var r rune
			if r, size = decodeRune(text, i); r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		dst = append(dst, text[start:i]...)
		switch ch {
		case '"', '\\':
			dst = append(dst, '\\', ch)
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			if ch >= utf8.RuneSelf {
				dst = utf8.AppendRune(dst, utf8.RuneError)
			} else {
				dst = append(dst, '\\', 'u', '0', '0', hexUpper[ch>>4], hexUpper[ch&15])
			}
		}
		i += size
		start = i
	}
	dst = append(dst, text[start:]...)
	return append(dst, '"')
}

func decodeRune[T ~[]byte | ~string](text T, i int) (rune, int) {
	var b [utf8.UTFMax]byte
	return utf8.DecodeRune(b[:copy(b[:], text[i:])])
}
