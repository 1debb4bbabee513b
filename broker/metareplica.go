package broker

import (
	"context"
	"time"

	"rmq/replication"
)

// replicatedMeta keeps documents on this disk, and with the other nodes while this one leads: a document
// that was saved is as safe as an acked message. Consumer offsets and the progress of delays are an
// exception where the log has slaves: those ask for them every second.
//
// While another node leads, this disk alone gets what is saved: it is what a restart shows until the
// leader's table comes.
type replicatedMeta struct {
	MetaLog // the files
	b       *Broker
}

// Save implements MetaLog. Of two errors it is that of the other nodes which counts: the document is on
// this disk then, unless this node no longer leads.
func (m *replicatedMeta) Save(name string, doc []byte) error {
	_, err := m.save(name, doc)
	return err
}

// save is Save, and says whether other nodes have the document.
func (m *replicatedMeta) save(name string, doc []byte) (shared bool, err error) {
	if m.b.leads.Load() && m.travels(name) {
		ctx, cancel := context.WithTimeout(context.Background(), m.wait())
		defer cancel()
		err = m.b.store.SaveMeta(ctx, name, doc)
		if shared = err == nil; shared {
			m.b.roles.saved(name, doc)
		}
		switch {
		case err != nil && !m.b.serving.Load(): // nobody waits for it any more, and the others have what was acked
			m.b.log.Warn("a table is saved on this node alone: the other nodes get it when they follow", "table", name, "err", err)
			err = nil
		case err != nil && !stored(err):
			return false, err
		}
	}
	if ferr := m.MetaLog.Save(name, doc); ferr != nil {
		return shared, ferr
	}
	return shared, err
}

func (m *replicatedMeta) travels(name string) bool {
	switch m.b.roles.newest().Mode {
	case replication.Raft:
		return true
	case replication.Async, replication.Sync:
		return name == topicsName || name == groupsName
	}
	return false
}

// wait bounds a save.
func (m *replicatedMeta) wait() time.Duration { return m.b.conf().SlaveTimeout }
