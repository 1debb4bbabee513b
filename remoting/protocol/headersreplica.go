package protocol

// PromoteHeader is the header of PROMOTE_REPLICA, which makes a slave the master of its name. Ours.
type PromoteHeader struct {
	AcceptLoss bool `ext:"acceptLoss"` // even if acked messages may be lost
}

// PromoteResponse is what a promotion has done.
type PromoteResponse struct {
	Epoch    int64 `ext:"epoch"`    // the new one
	End      int64 `ext:"end"`      // where it begins in the log
	LastSeen int64 `ext:"lastSeen"` // end of the old master's log when it was last heard of
	AgeMS    int64 `ext:"ageMs"`    // how long ago that was; -1: never
	MayLose  int64 `ext:"mayLose"`  // bytes that may be lost; -1: cannot be told
}

// RuntimeInfoHeader is the header of GET_BROKER_RUNTIME_INFO. Apache's has none.
type RuntimeInfoHeader struct {
	// RoleOnly leaves out what many clients that ask often do not need: who leads answers with an empty table, others with
	// what they know of their replication.
	RoleOnly bool `ext:"roleOnly"`
}

// TransferLeaderHeader is the header of TRANSFER_LEADER, for the leader of a group. Ours.
type TransferLeaderHeader struct {
	Peer string `ext:"peer"` // who shall lead; "": who is furthest
}

// ChangeMemberHeader is the header of CHANGE_MEMBER, for the leader of a group. Ours.
type ChangeMemberHeader struct {
	Action string `ext:"action,required"` // add, promote or remove
	Peer   string `ext:"peer,required"`
	Addr   string `ext:"addr"` // of its log, host:port; to add
}
