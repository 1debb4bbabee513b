package broker

import (
	"errors"
	"fmt"
	"net/netip"

	"rmq/internal/bakfile"
	"rmq/internal/config"
	"rmq/remoting/protocol"
)

// fixedConfig are keys that are no choice here and that stock tools fail without
// (org.apache.rocketmq.tools.command.export.ExportConfigsCommand of 4.9).
var fixedConfig = [][2]string{{"filterServerNums", "0"}}

// brokerConfig answers 26: all keys as a property file.
func (p *processors) brokerConfig(x *exchange, _ *noHeader) error {
	s := p.settings.Load()
	for _, key := range KeyNames() {
		if text, ok := s.Text(key); ok {
			x.resp.Body = config.AppendProperty(x.resp.Body, key, text)
		}
	}
	for _, kv := range fixedConfig {
		x.resp.Body = config.AppendProperty(x.resp.Body, kv[0], kv[1])
	}
	return x.ext(protocol.GetBrokerConfigResponse{Version: string(protocol.EncodeBody(p.configVersion.Load()))})
}

// updateBrokerConfig answers 25: changes keys that may be changed at run time, all or none, in the file
// that the broker started from and then in force.
func (p *processors) updateBrokerConfig(x *exchange, _ *noHeader) error {
	settings, err := config.TextSettings(config.Origin("request of "+x.conn.RemoteAddr().String()), x.req.Body)
	if err != nil {
		return answerf(protocol.ResponseSystemError, "%s", err)
	}
	p.configuring.Lock()
	defer p.configuring.Unlock()
	next, changes, notices, err := p.settings.Load().Update(settings)
	if errors.Is(err, config.ErrDenied) {
		return answerf(protocol.ResponseNoPermission, "Can not update config in black list: %s", err)
	}
	if err != nil {
		return answerf(protocol.ResponseSystemError, "%s", err)
	}
	for _, n := range notices {
		p.log.Warn("config", "notice", n)
	}
	if len(changes) == 0 {
		return nil
	}
	if err := p.writeConfig(changes); err != nil {
		return fmt.Errorf("nothing is changed: %w", err)
	}
	return p.adopt(x.conn.RemoteAddr(), next, changes)
}

// writeConfig puts changes into the file that the broker started from.
func (p *processors) writeConfig(changes []config.Change) error {
	if p.o.ConfigFile == "" {
		p.log.Warn("config changes are lost with the process: it was started without a file", "changes", changes)
		return nil
	}
	l, err := bakfile.Load(p.o.FS, p.o.ConfigFile, func([]byte) error { return nil })
	if err != nil {
		return err
	}
	text, err := config.Rewrite(l.Text, changes)
	if err != nil {
		return fmt.Errorf("write %s: %w", p.o.ConfigFile, err)
	}
	return bakfile.Save(p.o.FS, p.o.ConfigFile, text)
}

// adopt puts changed settings in force.
func (p *processors) adopt(by netip.AddrPort, next *Settings, changes []config.Change) error {
	old := p.conf()
	p.settings.Store(next)
	version := p.configVersion.Load().Next(p.stateVersion(), p.clock().UnixMilli())
	p.configVersion.Store(&version)
	for _, c := range changes {
		p.log.Info("audit", "config", c.Key, "old", c.Old, "new", c.New, "peer", by)
	}
	if p.o.Reconfigured != nil {
		p.o.Reconfigured(next.Get())
	}
	if old.BrokerPermission == next.Get().BrokerPermission {
		return nil
	}
	ctx, cancel := createContext()
	defer cancel()
	return p.Topics.BumpVersion(ctx) // all topics are registered with another permission
}
