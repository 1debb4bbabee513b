package namesrv

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"

	"rmq/internal/bakfile"
	"rmq/internal/vfs"
	"rmq/remoting/protocol"
)

// OrderNamespace is where the order of a topic's queues is kept: "broker:queues;broker:queues" by
// topic.
const OrderNamespace = "ORDER_TOPIC_CONFIG"

// KVConfigManager keeps texts by namespace and key, in a file of which Apache's name server and ours
// read each other's (org.apache.rocketmq.namesrv.kvconfig.KVConfigManager). Each name server has its
// own; tools write to all of them.
//
// Safe for concurrent use. Reads take no lock.
type KVConfigManager struct {
	fs   vfs.FS
	path string

	mu    sync.Mutex // held while the file is written
	table atomic.Pointer[kvTable]
}

// kvTable is not changed once it is published.
type kvTable map[string]map[string]string

// kvFile is the content of the file (KVConfigSerializeWrapper).
type kvFile struct {
	ConfigTable kvTable `json:"configTable"`
}

// KVChange sets a key, or deletes it.
type KVChange struct {
	Namespace, Key, Value string
	Delete                bool
}

// LoadKVConfig reads the file, or the generation before it where it is damaged, which is logged.
func LoadKVConfig(fsys vfs.FS, path string, log *slog.Logger) (*KVConfigManager, error) {
	m := &KVConfigManager{fs: fsys, path: path}
	m.table.Store(&kvTable{})
	var f kvFile
	l, err := bakfile.Load(fsys, path, func(text []byte) error {
		f = kvFile{}
		return protocol.DecodeBody(text, &f)
	})
	if err != nil {
		return nil, err
	}
	if l.Damage != nil {
		log.Warn("key-value pairs read from the generation before", "file", l.Path, "err", l.Damage)
	}
	if f.ConfigTable != nil && l.Text != nil {
		m.table.Store(&f.ConfigTable)
	}
	return m, nil
}

// Get gives one value.
func (m *KVConfigManager) Get(namespace, key string) (value string, ok bool) {
	value, ok = (*m.table.Load())[namespace][key]
	return value, ok
}

// Namespace gives all keys of a namespace, nil for one that there is not. They must not be changed.
func (m *KVConfigManager) Namespace(namespace string) map[string]string {
	return (*m.table.Load())[namespace]
}

// Apply makes changes, all or none, and returns when they are on the disk. Several cost one write.
func (m *KVConfigManager) Apply(changes []KVChange) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := maps.Clone(*m.table.Load())
	copied := map[string]bool{}
	for _, c := range changes {
		old, ok := next[c.Namespace][c.Key]
		if c.Delete && !ok || !c.Delete && ok && old == c.Value {
			continue
		}
		if !copied[c.Namespace] {
			if next[c.Namespace] = maps.Clone(next[c.Namespace]); next[c.Namespace] == nil {
				next[c.Namespace] = map[string]string{}
			}
			copied[c.Namespace] = true
		}
		if c.Delete {
			delete(next[c.Namespace], c.Key)
		} else {
			next[c.Namespace][c.Key] = c.Value
		}
	}
	if len(copied) == 0 {
		return nil
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "\t")
	if err := e.Encode(kvFile{next}); err != nil {
		return err
	}
	if err := bakfile.Save(m.fs, m.path, text.Bytes()); err != nil {
		return err
	}
	m.table.Store(&next)
	return nil
}
