package results

import "slices"

// Class is a durability class: what an acknowledgement means. Numbers of different classes are
// never ranked together.
type Class string

// Durability classes.
const (
	ClassD0  Class = "D0"     // process memory only
	ClassD1a Class = "D1a"    // page cache, one node
	ClassD1  Class = "D1"     // fsynced, one node
	ClassD2  Class = "D2"     // page cache, copied later
	ClassD1L Class = "D1+lag" // fsynced, copied later
	ClassD3  Class = "D3"     // page cache on two nodes
	ClassD3s Class = "D3s"    // fsynced on the leader, page cache on the slave
	ClassD3f Class = "D3f"    // fsynced on two nodes
	ClassD4  Class = "D4"     // page cache on a majority
	ClassD5  Class = "D5"     // fsynced on a majority
)

// classFacts: what an ack means, and what acknowledged messages survive.
var classFacts = map[Class]struct{ means, kill, powerOne, powerAll string }{
	ClassD0:  {"in process memory only", "no", "no", "no"},
	ClassD1a: {"page cache, 1 node", "yes", "no", "no"},
	ClassD1:  {"fsync, 1 node", "yes", "yes, when the node returns", "yes"},
	ClassD2:  {"page cache, copied later", "yes", "all but the lag", "no"},
	ClassD1L: {"fsync, copied later", "yes", "yes, when the node returns", "yes"},
	ClassD3:  {"page cache, 2 nodes", "yes", "yes", "no"},
	ClassD3s: {"fsync on the leader, page cache on the slave", "yes", "yes", "the leader's copy"},
	ClassD3f: {"fsync, 2 nodes", "yes", "yes", "yes"},
	ClassD4:  {"page cache, majority", "yes", "yes", "no"},
	ClassD5:  {"fsync, majority", "yes", "yes", "yes"},
}

// stricter lists, for each class, those that promise all that it does and more.
var stricter = map[Class][]Class{
	ClassD1a: {ClassD1, ClassD2, ClassD1L, ClassD3, ClassD3s, ClassD3f, ClassD4, ClassD5},
	ClassD1:  {ClassD1L, ClassD3s, ClassD3f, ClassD5},
	ClassD2:  {ClassD1L, ClassD3, ClassD3s, ClassD3f, ClassD4, ClassD5},
	ClassD1L: {ClassD3s, ClassD3f, ClassD5},
	ClassD3:  {ClassD3s, ClassD3f},
	ClassD3s: {ClassD3f},
	ClassD4:  {ClassD5},
}

// StricterThan says whether c promises all that other does, and more.
func (c Class) StricterThan(other Class) bool { return slices.Contains(stricter[other], c) }

// Means says what an ack of this class means, "unknown" for a class that we do not know.
func (c Class) Means() string {
	if f, ok := classFacts[c]; ok {
		return f.means
	}
	return "unknown"
}

// Survives says whether acknowledged messages outlive a killed process, a power cut of one node
// and one of all nodes at once.
func (c Class) Survives() (kill, powerOne, powerAll string) {
	if f, ok := classFacts[c]; ok {
		return f.kill, f.powerOne, f.powerAll
	}
	return "unknown", "unknown", "unknown"
}

// DurabilityClass tells the class of a cell from its flush and replication modes and the file
// system under the log. The note is not empty where the class is lower than the modes promise.
//
// stock nodes are Apache's: a slave of theirs acknowledges from the page cache whatever its master
// does, and so does a DLedger group.
func DurabilityClass(c Cell, fsType string, stock bool) (class Class, note string) {
	if !c.Stores() {
		return ClassD0, c.Driver + " driver: nothing is stored"
	}
	sync := c.Flush == "sync"
	switch c.Repl {
	case "async":
		class = pick(sync, ClassD1L, ClassD2)
	case "sync":
		class = pick(sync, pick(stock, ClassD3s, ClassD3f), ClassD3)
	case "raft":
		class = pick(sync && !stock, ClassD5, ClassD4)
	default:
		class = pick(sync, ClassD1, ClassD1a)
	}
	if !MemoryFS(fsType) {
		if sync && stock && c.Repl == "raft" {
			note = "DLedger acknowledges from the page cache of a majority whatever flushDiskType says"
		}
		return class, note
	}
	if sync {
		note = fsType + " is memory, not a disk: a sync keeps nothing"
	} else {
		note = fsType + " is memory, not a disk"
	}
	switch c.Repl {
	case "async":
		return ClassD2, note
	case "sync":
		return ClassD3, note
	case "raft":
		return ClassD4, note
	}
	return ClassD1a, note
}

// MemoryFS reports whether a file system of that type keeps its files in memory.
func MemoryFS(fsType string) bool {
	return fsType == "tmpfs" || fsType == "ramfs" || fsType == "heap"
}

func pick(cond bool, yes, no Class) Class {
	if cond {
		return yes
	}
	return no
}
