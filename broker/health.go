package broker

import (
	"fmt"

	"rmq/remoting/protocol"
)

// Alive says why the process should be replaced: nothing that is still to come would help it.
func (b *Broker) Alive() []string {
	if err := b.poison.Load(); err != nil {
		return []string{fmt.Sprintf("the store cannot go on: %v: start the broker again, it recovers what is on the disk", *err)}
	}
	return nil
}

// Ready says why the broker should get no work now.
func (b *Broker) Ready() []string {
	if !b.serving.Load() {
		return []string{"the broker is starting or stopping"}
	}
	not := b.Alive()
	c := b.conf()
	if known, all := b.NameServers(); all > 0 && known == 0 {
		not = append(not, fmt.Sprintf("none of %d name servers knows the broker, so that clients do not find it: see namesrvAddr=%v", all, c.NamesrvAddr))
	}
	if u, err := b.o.FS.Usage(c.StorePathCommitLog); err == nil && 100*usedRatio(u) > float64(c.DiskWarning) {
		not = append(not, fmt.Sprintf("the disk of %s is %.0f %% full, sends are refused above %d (diskSpaceWarningLevelRatio): make room", c.StorePathCommitLog, 100*usedRatio(u), c.DiskWarning))
	}
	if c.BrokerPermission&(protocol.PermRead|protocol.PermWrite) == 0 {
		not = append(not, "brokerPermission allows neither reading nor writing")
	}
	return not
}
