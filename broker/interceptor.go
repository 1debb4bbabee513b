package broker

import (
	"log/slog"

	"rmq/remoting"
	"rmq/remoting/protocol"
)

// Interceptor stands between the wire and the processors of some requests: an audit log is one, access
// control would be another. Its funcs run on any goroutine and must not block.
type Interceptor struct {
	Name string
	// Codes says which requests it is about.
	Codes func(code protocol.RequestCode) bool
	// Before may answer in place of the processor; nil lets the request pass. req is valid during the
	// call. A nil func lets everything pass.
	Before func(c *remoting.Conn, req *protocol.Command) *protocol.Command
	// After hears what a processor answered, nil when it did not or not yet. It is not called for
	// sends and pulls, whose answers are not made by a processor. It may be nil.
	After func(c *remoting.Conn, req, resp *protocol.Command)
}

// audited are the requests that change what a broker is or has.
var audited = map[protocol.RequestCode]bool{
	protocol.RequestUpdateAndCreateTopic: true, protocol.RequestUpdateAndCreateTopicList: true, protocol.RequestDeleteTopicInBroker: true,
	protocol.RequestUpdateAndCreateSubscriptionGroup: true, protocol.RequestUpdateAndCreateSubscriptionGroupList: true,
	protocol.RequestDeleteSubscriptionGroup: true, protocol.RequestUpdateBrokerConfig: true, protocol.RequestInvokeBrokerToResetOffset: true,
	protocol.RequestCloneGroupOffset: true, protocol.RequestQueryCorrectionOffset: true, protocol.RequestUpdateAndGetGroupForbidden: true,
	protocol.RequestCleanExpiredConsumeQueue: true, protocol.RequestCleanUnusedTopic: true, protocol.RequestDeleteExpiredCommitLog: true,
	protocol.RequestTriggerDeleteFiles: true, protocol.RequestUpdateAndCreateStaticTopic: true,
}

const auditValueBytes = 128

// auditLog writes a line for every request that changes something.
func auditLog(log *slog.Logger) Interceptor {
	return Interceptor{
		Name:  "audit",
		Codes: func(code protocol.RequestCode) bool { return audited[code] },
		After: func(c *remoting.Conn, req, resp *protocol.Command) {
			args := []any{"request", protocol.RequestCode(req.Code).String(), "peer", c.RemoteAddr()}
			for _, f := range req.Ext {
				v := f.Value
				if len(v) > auditValueBytes {
					v = v[:auditValueBytes]
				}
				args = append(args, "ext."+string(f.Key), string(v))
			}
			if len(req.Body) > 0 {
				args = append(args, "bodyBytes", len(req.Body))
			}
			if resp != nil {
				args = append(args, "answer", protocol.ResponseCode(resp.Code).String())
				if len(resp.Remark) > 0 {
					args = append(args, "remark", string(resp.Remark))
				}
			}
			log.Info("audit", args...)
		},
	}
}
