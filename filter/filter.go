// Package filter decides which messages a subscription takes: tag sets today; the type of an expression
// chooses the parser, so that SQL92 finds its place beside them.
//
// It follows org.apache.rocketmq.common.filter.ExpressionType and
// org.apache.rocketmq.remoting.protocol.filter.FilterAPI. Everything here is immutable and safe for
// concurrent use.
package filter

import (
	"fmt"
	"slices"
	"strings"

	"rmq/internal/binenc"
)

// Types of expressions, as they are named on the wire. "" means Tag.
const (
	Tag   = "TAG"
	SQL92 = "SQL92"
)

// All is the expression that takes everything.
const All = "*"

// Lookup finds a property of a message by name, nil if it has none.
type Lookup func(name string) []byte

// Expression decides in two steps, as messages are stored in two places. MatchHash sees what stands in the
// queue: false is final, true may be a collision. Match sees the message itself.
type Expression interface {
	// Type is Tag or SQL92.
	Type() string
	// String is the expression as it was written.
	String() string
	// MatchHash takes the tags hash of a queue entry, 0 for a message without tags.
	MatchHash(tagsHash int64) bool
	// Match takes the tags of the message, empty for none, and its properties.
	Match(tags []byte, properties Lookup) bool
}

// UnsupportedError names a type of expression that this broker does not evaluate.
type UnsupportedError struct{ Type string }

func (e *UnsupportedError) Error() string {
	if e.Type == SQL92 {
		return "the broker does not support consumer to filter message by SQL92: subscribe by tags"
	}
	return fmt.Sprintf("the expression type %q is not known: use TAG", e.Type)
}

// SyntaxError says why an expression cannot be parsed.
type SyntaxError struct{ Text, Detail string }

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("the expression %.128q %s: write * or tags as in a || b", e.Text, e.Detail)
}

// Parse reads an expression of a type. Errors: [*UnsupportedError], [*SyntaxError].
func Parse(typ, text string) (Expression, error) {
	switch typ {
	case "", Tag:
		return ParseTags(text)
	}
	return nil, &UnsupportedError{typ}
}

// TagSet is an expression over tags: those of a set, or all.
type TagSet struct {
	text   string
	tags   []string // sorted; nil takes all
	hashes []int64  // sorted
}

// ParseTags reads "" or "*", which take everything, or tags with || between them. Blanks around a tag do
// not belong to it, and tags that occur twice count once.
func ParseTags(text string) (*TagSet, error) {
	if text == "" || text == All {
		return &TagSet{text: All}, nil
	}
	s := &TagSet{text: text}
	for tag := range strings.SplitSeq(text, "||") {
		if tag = strings.TrimSpace(tag); tag != "" {
			s.tags = append(s.tags, tag)
			s.hashes = append(s.hashes, int64(binenc.StringHash(0, []byte(tag))))
		}
	}
	if s.tags == nil {
		return nil, &SyntaxError{text, "names no tag"}
	}
	slices.Sort(s.tags)
	slices.Sort(s.hashes)
	s.tags, s.hashes = slices.Compact(s.tags), slices.Compact(s.hashes)
	return s, nil
}

// Type is [Tag].
func (s *TagSet) Type() string { return Tag }

// String is the expression, "*" for all.
func (s *TagSet) String() string { return s.text }

// TakesAll says that there is nothing to filter.
func (s *TagSet) TakesAll() bool { return s.tags == nil }

// Tags are the tags in the order of the alphabet; none when all are taken.
func (s *TagSet) Tags() []string { return slices.Clone(s.tags) }

// Codes are the Java hashes of the tags, as subscriptions carry them.
func (s *TagSet) Codes() []int32 {
	c := make([]int32, len(s.hashes))
	for i, h := range s.hashes {
		c[i] = int32(h)
	}
	return c
}

// MatchHash says whether a tag of the set has this hash.
func (s *TagSet) MatchHash(tagsHash int64) bool {
	if s.tags == nil {
		return true
	}
	_, ok := slices.BinarySearch(s.hashes, tagsHash)
	return ok
}

// Match says whether the tags of a message are one of the set. It does not allocate.
func (s *TagSet) Match(tags []byte, _ Lookup) bool {
	if s.tags == nil {
		return true
	}
	for _, t := range s.tags {
		if t == string(tags) {
			return true
		}
	}
	return false
}
