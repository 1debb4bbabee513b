package message

// SysFlag are the system flags of a message (org.apache.rocketmq.common.sysflag.MessageSysFlag).
type SysFlag int32

// The bits. Transaction types are two bits, the compression type three.
const (
	FlagCompressed   SysFlag = 0x0001
	FlagMultiTags    SysFlag = 0x0002
	FlagPrepared     SysFlag = 0x0004
	FlagCommit       SysFlag = 0x0008
	FlagRollback     SysFlag = 0x000C
	FlagBornHostV6   SysFlag = 0x0010
	FlagStoreHostV6  SysFlag = 0x0020
	FlagNeedUnwrap   SysFlag = 0x0040
	FlagInnerBatch   SysFlag = 0x0080
	FlagLZ4          SysFlag = 0x0100
	FlagZstd         SysFlag = 0x0200
	FlagZlib         SysFlag = 0x0300
	transactionMask  SysFlag = 0x000C
	compressionTypes SysFlag = 0x0700
	hostBytesV4              = 8
	hostBytesV6              = 20
)

// Has reports whether all bits of f are set.
func (s SysFlag) Has(f SysFlag) bool { return s&f == f }

// Transaction is the transaction type: 0, [FlagPrepared], [FlagCommit] or [FlagRollback].
func (s SysFlag) Transaction() SysFlag { return s & transactionMask }

// Compression is the compression type: 0 (zlib, the old way), [FlagLZ4], [FlagZstd] or [FlagZlib].
func (s SysFlag) Compression() SysFlag { return s & compressionTypes }

// ConsumesOffset reports whether a record takes a place in its consume queue: prepared and
// rolled-back transaction records do not.
func (s SysFlag) ConsumesOffset() bool {
	t := s & transactionMask
	return t != FlagPrepared && t != FlagRollback
}

func (s SysFlag) bornBytes() int {
	if s&FlagBornHostV6 != 0 {
		return hostBytesV6
	}
	return hostBytesV4
}

func (s SysFlag) storeBytes() int {
	if s&FlagStoreHostV6 != 0 {
		return hostBytesV6
	}
	return hostBytesV4
}
