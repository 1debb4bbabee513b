package ha

import "encoding/binary"

// The wire of org.apache.rocketmq.store.ha.DefaultHAService, the same in 4.9 and 5.x: the slave sends
// its end as eight bytes, again and again; the master sends a position (8), a length (4) and so many
// bytes of the log.
const (
	stockReportBytes = 8
	stockHeaderBytes = 12
	stockMaxBody     = 4 << 20 // more is no HA frame; Apache sends 32 KiB
)

// ownPreamble is -1 as a report: our slaves begin with it. Apache reads it as "no request yet".
var ownPreamble = [stockReportBytes]byte{0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}

func stockReport(end int64) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(end))
}

func appendStockHeader(dst []byte, pos int64, n int) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(dst, uint64(pos)), uint32(n))
}

// parseStockHeader refuses what no master sends.
func parseStockHeader(b []byte) (pos int64, n int, err error) {
	if len(b) < stockHeaderBytes {
		return 0, 0, ErrShort
	}
	pos, n = int64(binary.BigEndian.Uint64(b)), int(int32(binary.BigEndian.Uint32(b[8:])))
	switch {
	case pos < 0:
		return 0, 0, ErrNegative
	case n < 0 || n > stockMaxBody:
		return 0, 0, ErrTooLong
	}
	return pos, n, nil
}
