package broker

import (
	"rmq/remoting/protocol"
)

// queryMessage answers 12: the messages that the index has for a key or a unique key, in the order of the
// log. Two keys may share a hash: the client compares.
func (p *processors) queryMessage(x *exchange, h *protocol.QueryMessageHeader) error {
	c := p.conf()
	limit := int(h.MaxNum)
	if h.UniqueKey {
		limit = c.QueryMax
	}
	positions, err := p.store.QueryKey(h.Topic, h.Key, max(min(limit, c.QueryCap), 1), h.BeginTimestamp, h.EndTimestamp)
	if err != nil {
		return err
	}
	for _, pos := range positions {
		if full, err := x.record(p, pos); err == nil && full {
			break
		} else if err != nil {
			p.log.Warn("the index names a message that cannot be read", "topic", h.Topic, "key", h.Key, "pos", pos, "err", err)
		}
	}
	if len(x.resp.Body) == 0 {
		x.resp.Code = int32(protocol.ResponseQueryNotFound)
		x.resp.SetRemark("can not find message, maybe time range not correct")
	}
	return x.ext(protocol.QueryMessageResponse{IndexLastUpdateTimestamp: p.clock().UnixMilli(), IndexLastUpdatePhyOffset: p.store.Dispatched()})
}

// record appends the stored message at pos to the body, unless the body would be too long.
func (x *exchange) record(p *processors, pos int64) (full bool, err error) {
	r, err := p.store.Lookup(pos)
	if r == nil {
		return false, err
	}
	defer r.Release()
	if err != nil {
		return false, err
	}
	if len(x.resp.Body)+r.Bytes > maxBodyBytes {
		return true, nil
	}
	x.resp.Body = r.AppendTo(x.resp.Body)
	return false, nil
}

// viewMessage answers 33.
func (p *processors) viewMessage(x *exchange, h *protocol.ViewMessageHeader) error {
	if _, err := x.record(p, h.Offset); err != nil || len(x.resp.Body) == 0 {
		return answerf(protocol.ResponseSystemError, "can not find message by the offset, %d", h.Offset)
	}
	return nil
}
