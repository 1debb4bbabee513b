package raftlog

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"rmq/engine"
)

// ForeignError says that the directory holds a log that is not kept by a group of this kind.
type ForeignError struct{ Path, What, Fix string }

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s: %s: %s", e.Path, e.What, e.Fix)
}

// refuseOthers looks in and above the node's directory for a log that would be left behind unnoticed.
func refuseOthers(o *engine.Options) error {
	const fix = "nothing was changed; start the broker that wrote it, or name another storePathRootDir"
	root := path.Dir(path.Clean(o.Dir))
	for _, dir := range []string{root, o.Dir} {
		entries, err := o.FS.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.IsDir() && strings.HasPrefix(e.Name(), "dledger-") {
				return &ForeignError{path.Join(dir, e.Name()), "a DLedger store of Apache RocketMQ, whose frames are others", fix}
			}
		}
	}
	segments, err := o.FS.ReadDir(path.Join(root, "commitlog"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(segments) > 0 {
		return &ForeignError{path.Join(root, "commitlog"), "a commit log that no group keeps; enableDLegerCommitLog=true would hide its messages",
			"nothing was changed; start without enableDLegerCommitLog, or name another storePathRootDir"}
	}
	return nil
}
