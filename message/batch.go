package message

import (
	"encoding/binary"
	"fmt"

	"rmq/internal/binenc"
)

// BatchError says where the items of a message batch cannot be read, or why they may not be stored.
type BatchError struct {
	Item int // number of the item, from 0; -1 for the batch as a whole
	Err  error
	What string
}

func (e *BatchError) Error() string {
	text := e.What
	if e.Err != nil {
		text = e.Err.Error()
		if e.What != "" {
			text = e.What + ": " + text
		}
	}
	if e.Item < 0 {
		return "message batch: " + text
	}
	return fmt.Sprintf("message batch, item %d: %s", e.Item, text)
}

// Unwrap gives the cause.
func (e *BatchError) Unwrap() error { return e.Err }

// AppendBatchRecords appends one record for each item of a message batch, back to back, and returns
// how many there are. items is what a producer sends as the body of a batch
// (org.apache.rocketmq.common.message.MessageDecoder.encodeMessages): for each item its size,
// magic, CRC, flag (4 bytes each), body length (4) and body, properties length (2) and properties.
//
// Queue, hosts, times and system flags are those of outer, whose properties are appended to those of
// each item. On an error dst comes back as it was: a [*BatchError], around a [*LimitError] or
// [ErrHost] where it is one. Nothing is allocated when dst has room.
func AppendBatchRecords(dst []byte, outer *Message, items []byte) ([]byte, int, error) {
	if outer.SysFlag.Transaction() != 0 {
		return dst, 0, &BatchError{Item: -1, What: "a batch takes no part in a transaction: send the messages one by one"}
	}
	if len(outer.Properties.Get(PropDelay)) > 0 {
		return dst, 0, &BatchError{Item: -1, What: "a batch cannot be delayed: send the messages one by one"}
	}
	start, n := len(dst), 0
	for len(items) > 0 {
		size, flag, body, props, err := batchItem(items)
		if err == "" {
			var aerr error
			if dst, aerr = appendRecord(dst, outer, flag, 0, body, props, outer.Properties); aerr != nil {
				return dst[:start], 0, &BatchError{Item: n, Err: aerr}
			}
		} else {
			return dst[:start], 0, &BatchError{Item: n, What: err}
		}
		items = items[size:]
		n++
	}
	if n == 0 {
		return dst, 0, &BatchError{Item: -1, What: "it is empty: send at least one message"}
	}
	return dst, n, nil
}

func batchItem(b []byte) (size int, flag int32, body []byte, props Properties, complaint string) {
	r := binenc.NewReader(b)
	size = int(r.I32())
	r.Bytes(8) // magic and checksum, not used by producers
	flag = r.I32()
	body = r.Bytes(int(r.I32()))
	props = Properties(r.Bytes(int(r.I16())))
	switch {
	case r.Err() != nil:
		complaint = "it is cut short"
	case size != r.Offset():
		complaint = "its size is not the sum of its parts"
	case len(props.Get(PropDelay)) > 0:
		complaint = "it has a delay level: send it alone"
	}
	return size, flag, body, props, complaint
}

// AppendBatchItem appends one item as [AppendBatchRecords] reads it.
func AppendBatchItem(dst []byte, flag int32, body []byte, props Properties) ([]byte, error) {
	if len(props) > MaxPropertiesBytes {
		return dst, &LimitError{"properties", len(props), MaxPropertiesBytes, "send fewer or shorter ones"}
	}
	w := binary.BigEndian
	dst = w.AppendUint32(dst, uint32(4*5+len(body)+2+len(props)))
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = w.AppendUint32(dst, uint32(flag))
	dst = w.AppendUint32(dst, uint32(len(body)))
	dst = append(dst, body...)
	dst = w.AppendUint16(dst, uint16(len(props)))
	return append(dst, props...), nil
}
