package client

import (
	"slices"
	"strings"
	"time"

	"rmq/message"
	"rmq/remoting/protocol"
)

// Expression says which messages of a topic a consumer wants. The zero value means all.
type Expression struct {
	kind, text string
}

// Tags subscribes to messages that carry one of the tags; with none given, or "*", to all. A tag
// may itself be a list of the form "a || b".
func Tags(tags ...string) Expression {
	return Expression{protocol.ExpressionTag, strings.Join(tags, " || ")}
}

// SQL subscribes by an expression over message properties. The broker has to allow it.
func SQL(expression string) Expression { return Expression{protocol.ExpressionSQL92, expression} }

// String is the expression as it travels.
func (e Expression) String() string {
	if e.text == "" {
		return "*"
	}
	return e.text
}

// subscription is what a consumer wants of one topic: as brokers are told, and as it checks itself,
// since brokers compare hashes of tags only.
type subscription struct {
	data *protocol.SubscriptionData
	tags []string // sorted; nil = all
}

func newSubscription(topic string, e Expression, now time.Time) *subscription {
	kind := e.kind
	if kind == "" {
		kind = protocol.ExpressionTag
	}
	s := &subscription{data: &protocol.SubscriptionData{
		Topic: topic, SubString: e.String(), ExpressionType: kind, SubVersion: now.UnixMilli(),
		TagsSet: []string{}, CodeSet: []int32{},
	}}
	if kind != protocol.ExpressionTag || s.data.SubString == "*" {
		return s
	}
	for tag := range strings.SplitSeq(s.data.SubString, "||") {
		if tag = strings.TrimSpace(tag); tag != "" && !slices.Contains(s.tags, tag) {
			s.tags = append(s.tags, tag)
		}
	}
	slices.Sort(s.tags)
	for _, tag := range s.tags {
		s.data.TagsSet = append(s.data.TagsSet, tag)
		s.data.CodeSet = append(s.data.CodeSet, int32(message.TagHash([]byte(tag))))
	}
	return s
}

// wants reports whether a message with the tag is for the subscriber.
func (s *subscription) wants(tag []byte) bool {
	if s.tags == nil {
		return true
	}
	_, ok := slices.BinarySearchFunc(s.tags, tag, func(have string, want []byte) int {
		return strings.Compare(have, string(want))
	})
	return ok
}
