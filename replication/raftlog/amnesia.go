package raftlog

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"rmq/engine"
	"rmq/internal/vfs"
)

// identity is who this node is in the group: its id with an incarnation, n0#1. A node that may have
// forgotten what it has voted for, because its directory was lost or because it acked from the page cache
// and the machine was started anew without a clean stop, takes part under the next incarnation only, once
// the leader has let that in. It is kept in rmq/raft/identity.
type identity struct {
	ID     string `json:"id"`
	Group  string `json:"group"`
	BootID string `json:"bootId"` // of the machine when the node was opened last
	Clean  bool   `json:"clean"`  // it was closed
	Flush  string `json:"flush"`  // how it acked

	fs      vfs.FS
	dir     string
	amnesia bool // it was opened without knowing what it has forgotten
}

const identityName = "identity"

// memberName is an id without its incarnation.
func memberName(id string) string {
	name, _, _ := strings.Cut(id, "#")
	return name
}

// incarnation is the number in an id, 0 if there is none.
func incarnation(id string) int {
	_, n, _ := strings.Cut(id, "#")
	k, err := strconv.Atoi(n)
	if err != nil {
		return 0
	}
	return k
}

func memberID(name string, incarnation int) string { return fmt.Sprintf("%s#%d", name, incarnation) }

// bootID tells one start of the machine from the next; empty where the system has none.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // empty is the answer then
	return strings.TrimSpace(string(b))
}

// loadIdentity reads who the node is and finds out whether it may have forgotten. It changes nothing, since the node
// may not start; [identity.opened] does.
func loadIdentity(fsys vfs.FS, dir string, o *Options) (identity, error) {
	boot := o.BootID
	if boot == "" {
		boot = bootID()
	}
	id := identity{fs: fsys, dir: dir}
	known, err := loadDoc(fsys, path.Join(dir, identityName), &id)
	if err != nil {
		return id, fmt.Errorf("%w: move the whole directory away and start the node empty, it is let in again under a new identity", err)
	}
	if known {
		if id.Group != o.Group {
			return id, fmt.Errorf("%s belongs to group %q, dLegerGroup is %q: correct the name, or name another storePathRootDir", dir, id.Group, o.Group)
		}
		if id.ID != "" && memberName(id.ID) != o.SelfID {
			return id, fmt.Errorf("%s belongs to %s, dLegerSelfId is %q: correct it", dir, id.ID, o.SelfID)
		}
	}
	id.amnesia = id.ID != "" && !id.Clean && id.BootID != boot && id.Flush == engine.AsyncFlush.String()
	return id, nil
}

// opened notes that the node runs, before it takes part in anything. One that may have forgotten notes it once its new
// identity is known: until then every start finds the same.
func (id *identity) opened(o *Options) error {
	if id.amnesia {
		return nil
	}
	return id.become(id.ID, o)
}

// become takes a new id.
func (id *identity) become(member string, o *Options) error {
	boot := o.BootID
	if boot == "" {
		boot = bootID()
	}
	id.ID, id.Group, id.BootID, id.Flush, id.amnesia = member, o.Group, boot, o.Engine.Flush.String(), false
	return id.save(false)
}

// save makes it durable.
func (id *identity) save(clean bool) error {
	id.Clean = clean
	return saveDoc(id.fs, path.Join(id.dir, identityName), id)
}
