package replication

import (
	"context"

	"rmq/engine"
)

// Plain is a log that no other machine holds.
type Plain struct{ *engine.Store }

// NewPlain tells events.Role at once that s leads.
func NewPlain(s *engine.Store, events Events) *Plain {
	p := &Plain{s}
	if events.Role != nil {
		events.Role(p.Status())
	}
	return p
}

// SaveMeta implements [Log]: the copy that the caller keeps is all there is.
func (*Plain) SaveMeta(context.Context, string, []byte) error { return nil }

// Late implements [Log].
func (*Plain) Late(int64) error { return engine.ErrIndeterminate }

// Handover implements [Log]: there is nobody else.
func (*Plain) Handover(context.Context) error { return nil }

// Status implements [Log].
func (p *Plain) Status() Status {
	st := p.Stats()
	return Status{Mode: None, Role: Leader, Confirm: st.Visible, Written: st.Written, Durable: st.Flushed}
}

var _ Log = (*Plain)(nil)
