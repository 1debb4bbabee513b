package message

import (
	"bytes"
	"slices"
	"strconv"
)

// Names of properties that the store reads.
const (
	PropKeys      = "KEYS"
	PropTags      = "TAGS"
	PropUniqKey   = "UNIQ_KEY"
	PropDelay     = "DELAY"
	PropRealTopic = "REAL_TOPIC"
	PropRealQueue = "REAL_QID"
	PropWait      = "WAIT"
	PropCRC       = "__CRC32#"
)

// TopicSchedule holds delayed messages, one queue a level.
const TopicSchedule = "SCHEDULE_TOPIC_XXXX"

const (
	nameEnd  = 1
	valueEnd = 2
)

// Properties are encoded properties: name 0x01 value 0x02, again and again, the last 0x02 optional.
type Properties []byte

// AppendProperty appends one property.
func AppendProperty[B ~[]byte](dst B, name, value string) B {
	dst = append(dst, name...)
	dst = append(dst, nameEnd)
	dst = append(dst, value...)
	return append(dst, valueEnd)
}

// Get is the value of name, nil if it is absent. The slice aliases p.
func (p Properties) Get(name string) []byte {
	for len(p) > 0 {
		var seg []byte
		seg, p = p.next()
		if len(seg) > len(name) && seg[len(name)] == nameEnd && string(seg[:len(name)]) == name {
			return seg[len(name)+1:]
		}
	}
	return nil
}

// AppendPropertiesWithout appends p without the properties of these names, closed so that more may follow.
func AppendPropertiesWithout[B ~[]byte](dst B, p Properties, names ...string) B {
	for len(p) > 0 {
		var seg []byte
		seg, p = p.next()
		if i := bytes.IndexByte(seg, nameEnd); i > 0 && slices.Contains(names, string(seg[:i])) {
			continue
		}
		if len(seg) > 0 {
			dst = append(append(dst, seg...), valueEnd)
		}
	}
	return dst
}

func (p Properties) next() (seg []byte, rest Properties) {
	if i := bytes.IndexByte(p, valueEnd); i >= 0 {
		return p[:i], p[i+1:]
	}
	return p, nil
}

// Each calls f for every property that has a name and a value, in stored order, until f returns false.
func (p Properties) Each(f func(name, value []byte) bool) {
	for len(p) > 0 {
		var seg []byte
		seg, p = p.next()
		if i := bytes.IndexByte(seg, nameEnd); i > 0 && i < len(seg)-1 && !f(seg[:i], seg[i+1:]) {
			return
		}
	}
}

// Scan finds the unique key, the keys and the tags in one pass; nil for what is absent.
func (p Properties) Scan() (uniq, keys, tags []byte) {
	for len(p) > 0 {
		var seg []byte
		seg, p = p.next()
		switch {
		case len(seg) > 9 && seg[8] == nameEnd && string(seg[:8]) == PropUniqKey:
			uniq = seg[9:]
		case len(seg) > 5 && seg[4] == nameEnd && string(seg[:4]) == PropKeys:
			keys = seg[5:]
		case len(seg) > 5 && seg[4] == nameEnd && string(seg[:4]) == PropTags:
			tags = seg[5:]
		}
	}
	return uniq, keys, tags
}

// DelayLevel is the number in [PropDelay], 0 if there is none.
func (p Properties) DelayLevel() int {
	v := p.Get(PropDelay)
	if len(v) == 0 {
		return 0
	}
	n, err := strconv.Atoi(string(v))
	if err != nil || n < 0 {
		return 0
	}
	return n
}
