package replication

import (
	"strconv"
	"strings"
	"time"
)

// Info is the state of a log as names and values, the form in which a broker tells it among its runtime
// information (GET_BROKER_RUNTIME_INFO). [ParseInfo] reads it back.
func Info(l Log) map[string]string {
	s := l.Status()
	t := map[string]string{
		"replicationMode": s.Mode.String(), "replicationRole": s.Role.String(), "replicationId": s.ID,
		"replicationEpoch": decimal(s.Epoch), "replicationLeader": s.Leader, "replicationLeaderAddr": s.Client,
		"replicationConfirm": decimal(s.Confirm), "replicationWritten": decimal(s.Written), "replicationDurable": decimal(s.Durable),
	}
	if s.Why != "" {
		t["replicationWhy"] = s.Why
	}
	var ids []string
	for _, p := range s.Peers {
		ids = append(ids, p.ID)
		for name, v := range map[string]string{
			"addr": p.Addr, "client": p.Client, "written": decimal(p.Written), "durable": decimal(p.Durable), "lagBytes": decimal(p.LagBytes),
			"bytesOut": decimal(p.BytesOut), "inSync": strconv.FormatBool(p.InSync), "voter": strconv.FormatBool(p.Voter), "stock": strconv.FormatBool(p.Stock),
			"quietMs": decimal(p.Quiet.Milliseconds()),
		} {
			t[peerKey(p.ID, name)] = v
		}
	}
	t["replicationPeers"] = strings.Join(ids, " ")
	if timed, ok := l.(Timed); ok {
		timed.Hops().Each(func(name string, h Hop) {
			t[hopKey(name)] = decimal(h.Count) + " " + decimal(h.Nanos)
		})
	}
	return t
}

// ParseInfo reads what [Info] has made, among other names; false if it is not there.
func ParseInfo(t map[string]string) (s Status, h Hops, ok bool) {
	mode, err := ParseMode(t["replicationMode"])
	if err != nil {
		return s, h, false
	}
	s = Status{
		Mode: mode, ID: t["replicationId"], Epoch: number(t["replicationEpoch"]), Leader: t["replicationLeader"], Client: t["replicationLeaderAddr"],
		Confirm: number(t["replicationConfirm"]), Written: number(t["replicationWritten"]), Durable: number(t["replicationDurable"]), Why: t["replicationWhy"],
	}
	for _, r := range []Role{Follower, Leader, ReadOnly} {
		if r.String() == t["replicationRole"] {
			s.Role = r
		}
	}
	for id := range strings.FieldsSeq(t["replicationPeers"]) {
		get := func(name string) string { return t[peerKey(id, name)] }
		s.Peers = append(s.Peers, Peer{
			ID: id, Addr: get("addr"), Client: get("client"), Written: number(get("written")), Durable: number(get("durable")),
			LagBytes: number(get("lagBytes")), BytesOut: number(get("bytesOut")), InSync: get("inSync") == "true", Voter: get("voter") == "true",
			Stock: get("stock") == "true", Quiet: time.Duration(number(get("quietMs"))) * time.Millisecond,
		})
	}
	for _, x := range h.list() {
		count, nanos, _ := strings.Cut(t[hopKey(x.name)], " ")
		*x.hop = Hop{Count: number(count), Nanos: number(nanos)}
	}
	return s, h, true
}

func peerKey(id, name string) string { return "replicationPeer." + id + "." + name }
func hopKey(name string) string      { return "replicationHop." + name }

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// number is 0 of what is no number: it was made by Info, or by a newer one.
func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}
