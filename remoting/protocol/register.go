package protocol

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"

	"rmq/internal/binenc"
)

// maxRegisterBytes is the most that a compressed registration may hold once it is unpacked.
const maxRegisterBytes = 256 << 20

// BodyCRC is the checksum of RegisterBrokerHeader: CRC-32 (IEEE) of the body as it is sent, without the sign bit.
func BodyCRC(body []byte) int32 { return int32(crc32.ChecksumIEEE(body) & 0x7FFFFFFF) }

// EncodeRegisterBroker writes the body of REGISTER_BROKER; compressed makes it one zlib stream of
//
//	length, data version (JSON) | count, count × (length, topic line) | length, filter servers (JSON)
//	| count, count × (length, mapping info (JSON))      with version 413 and later
//
// where lengths and counts are 32 bits and a topic line is "name read write perm filterType attributes"
// (RegisterBrokerBody.encode). Topics are written in the order of their names.
func EncodeRegisterBroker(b *RegisterBrokerBody, compressed bool) ([]byte, error) {
	if !compressed {
		return EncodeBody(b), nil
	}
	w := &b.TopicConfigSerializeWrapper
	raw := appendBlock(nil, EncodeBody(w.DataVersion))
	raw = binary.BigEndian.AppendUint32(raw, uint32(len(w.TopicConfigTable)))
	for _, name := range sortedKeys(w.TopicConfigTable) {
		raw = appendBlock(raw, w.TopicConfigTable[name].appendLine(nil))
	}
	raw = appendBlock(raw, EncodeBody(b.FilterServerList))
	raw = binary.BigEndian.AppendUint32(raw, uint32(len(w.TopicQueueMappingInfoMap)))
	for _, name := range sortedKeys(w.TopicQueueMappingInfoMap) {
		raw = appendBlock(raw, EncodeBody(w.TopicQueueMappingInfoMap[name]))
	}
	return Compress(nil, raw, CompressionZlib)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func appendBlock(dst, b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(b))), b...)
}

func (c *TopicConfig) appendLine(dst []byte) []byte {
	dst = append(dst, c.TopicName...)
	for _, n := range [...]int32{c.ReadQueueNums, c.WriteQueueNums, c.Perm} {
		dst = strconv.AppendInt(append(dst, ' '), int64(n), 10)
	}
	dst = append(append(append(dst, ' '), c.TopicFilterType...), ' ')
	return AppendBody(dst, c.Attributes)
}

// parseLine reads a topic line; attributes that are absent or no JSON are none.
func (c *TopicConfig) parseLine(line string) error {
	c.setDefaults()
	f := strings.SplitN(line, " ", 6)
	if len(f) < 5 || f[0] == "" {
		return &BodyError{"$.topicConfigTable", fmt.Sprintf("%.128q is no topic line of at least five columns", line), ErrMalformed}
	}
	c.TopicName, c.TopicFilterType = f[0], f[4]
	for i, dst := range []*int32{&c.ReadQueueNums, &c.WriteQueueNums, &c.Perm} {
		n, ok := parseInt([]byte(f[1+i]), 32)
		if !ok {
			return &BodyError{"$.topicConfigTable." + f[0], fmt.Sprintf("%.64q is no number", f[1+i]), ErrMalformed}
		}
		*dst = int32(n)
	}
	if len(f) == 6 && DecodeBody([]byte(f[5]), &c.Attributes) != nil {
		c.Attributes = nil
	}
	return nil
}

// DecodeRegisterBroker reads the body of a REGISTER_BROKER from a sender of this version: plain or
// compressed, bare before [VersionFilterServers], with mappings from [VersionMappings] on, or absent,
// which is an empty table. Errors: [*BodyError].
func DecodeRegisterBroker(body []byte, version int32, compressed bool) (*RegisterBrokerBody, error) {
	b := &RegisterBrokerBody{}
	switch {
	case len(body) == 0:
		return b, nil
	case compressed:
		raw, err := Decompress(nil, body, CompressionZlib, maxRegisterBytes)
		if err != nil {
			return nil, &BodyError{"$", err.Error(), ErrMalformed}
		}
		return b, b.decodeBlocks(raw, version)
	case version < VersionFilterServers:
		return b, DecodeBody(body, &b.TopicConfigSerializeWrapper)
	}
	return b, DecodeBody(body, b)
}

func (b *RegisterBrokerBody) decodeBlocks(raw []byte, version int32) error {
	w := &b.TopicConfigSerializeWrapper
	r := binenc.NewReader(raw)
	short := func(what string) error {
		return &BodyError{"$." + what, fmt.Sprintf("%d bytes in all", len(raw)), ErrTruncated}
	}
	if err := DecodeBody(r.Bytes(int(r.I32())), &w.DataVersion); err != nil && r.Err() == nil {
		return err
	}
	n := int(r.I32())
	if r.Err() != nil || n < 0 || n > len(r.Rest())/4 {
		return short("dataVersion")
	}
	w.TopicConfigTable = make(map[string]*TopicConfig, n)
	for range n {
		c := &TopicConfig{}
		line := r.Bytes(int(r.I32()))
		if r.Err() != nil {
			return short("topicConfigTable")
		}
		if err := c.parseLine(string(line)); err != nil {
			return err
		}
		w.TopicConfigTable[c.TopicName] = c
	}
	list := r.Bytes(int(r.I32()))
	if r.Err() != nil {
		return short("filterServerList")
	}
	if err := DecodeBody(list, &b.FilterServerList); err != nil {
		return err
	}
	if version < VersionMappings {
		return nil
	}
	n = int(r.I32())
	if r.Err() != nil || n < 0 || n > len(r.Rest())/4 {
		return short("topicQueueMappingInfoMap")
	}
	w.TopicQueueMappingInfoMap = make(map[string]*TopicQueueMappingInfo, n)
	for range n {
		info := &TopicQueueMappingInfo{}
		text := r.Bytes(int(r.I32()))
		if r.Err() != nil {
			return short("topicQueueMappingInfoMap")
		}
		if err := DecodeBody(text, info); err != nil {
			return err
		}
		w.TopicQueueMappingInfoMap[info.Topic] = info
	}
	return nil
}
