//go:build faults

package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"rmq/broker"
	"rmq/internal/vfs"
	"rmq/internal/vfs/powercut"
)

// withFaults gives the broker a file system on which a test can
//
//	RMQ_FAULT_POWERCUT=DIR   take back what was not synced, after a kill (package powercut)
//	RMQ_FAULT_DIAL=A=B,…      reach B where replication would reach A
//	RMQ_FAULT_BOOT=ID         believe that the machine was started since the last time, if ID is another;
//	                          with RMQ_FAULT_REBOOTED=1 in any case
//	RMQ_FAULT_GATES=A,B,…     go without guards of a group's log: those of [raftlog.Options].GatesOff
//	RMQ_FAULT_RULES=FILE     make calls fail or wait, by the rules of [vfs.ParseRules], read again when the file changes
func withFaults(o broker.Options) (broker.Options, error) {
	if side := os.Getenv("RMQ_FAULT_POWERCUT"); side != "" {
		fs, err := powercut.New(side)
		if err != nil {
			return o, fmt.Errorf("RMQ_FAULT_POWERCUT: %w", err)
		}
		o.FS = fs
	}
	if list := os.Getenv("RMQ_FAULT_DIAL"); list != "" {
		instead := map[string]string{}
		for pair := range strings.SplitSeq(list, ",") {
			from, to, _ := strings.Cut(pair, "=")
			instead[from] = to
		}
		o.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 3 * time.Second}).DialContext(ctx, "tcp", cmp.Or(instead[addr], addr))
		}
	}
	if id := os.Getenv("RMQ_FAULT_BOOT"); id != "" {
		o.BootID, o.Rebooted = id, os.Getenv("RMQ_FAULT_REBOOTED") != ""
	}
	if list := os.Getenv("RMQ_FAULT_GATES"); list != "" {
		o.GatesOff = strings.Split(list, ",")
	}
	if file := os.Getenv("RMQ_FAULT_RULES"); file != "" {
		if o.FS == nil {
			o.FS = vfs.OS
		}
		faulty := vfs.NewFaulty(o.FS)
		w := &watchedRules{file: file, fs: faulty}
		if err := w.look(); err != nil {
			return o, fmt.Errorf("RMQ_FAULT_RULES: %w", err)
		}
		faulty.Before(func(vfs.Call) {
			if err := w.look(); err != nil {
				panic("RMQ_FAULT_RULES: " + err.Error())
			}
		})
		o.FS = faulty
	}
	return o, nil
}

// watchedRules are rules in a file. A file that is not there has none. It is to be replaced, not rewritten.
type watchedRules struct {
	file string
	fs   *vfs.Faulty
	mu   sync.Mutex
	seen os.FileInfo
}

// look reads the file if it has changed.
func (w *watchedRules) look() error {
	info, err := os.Stat(w.file)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen != nil && os.SameFile(info, w.seen) && info.Size() == w.seen.Size() && info.ModTime().Equal(w.seen.ModTime()) {
		return nil
	}
	text, err := os.ReadFile(w.file)
	if err != nil {
		return err
	}
	rules, err := vfs.ParseRules(string(text))
	if err != nil {
		return err
	}
	w.seen = info
	w.fs.Clear()
	for _, r := range rules {
		w.fs.Add(r)
	}
	return nil
}
