package engine

import (
	"errors"
	"io"
	"path"

	"rmq/internal/vfs"
)

// lockName is the lock file of the original, in the root.
const lockName = "lock"

// locks are the locks of one open store, in the order in which they were taken.
type locks []io.Closer

// acquireLocks makes root and every other directory that the store writes into this process's own.
// It creates what is missing.
//
// The root is locked as Apache does, by an fcntl lock on its file "lock", so either broker keeps
// the other one out. Two roots may name the same commit log or queue directory, and such a
// directory must hold nothing but files of its queue, so the directory itself is locked and no file
// is left in it. What the caller gets for a directory in use is a [*vfs.LockedError] with the
// holder's process id.
func acquireLocks(fsys vfs.FS, root string, dirs ...string) (io.Closer, error) {
	var held locks
	take := func(name string) error {
		l, err := fsys.Lock(name)
		if err != nil {
			return errors.Join(err, held.Close())
		}
		held = append(held, l)
		return nil
	}
	if err := fsys.MkdirAll(root, 0o755); err != nil {
		return nil, err
	}
	if err := take(path.Join(root, lockName)); err != nil {
		return nil, err
	}
	seen := map[string]bool{path.Clean(root): true}
	for _, dir := range dirs {
		dir = path.Clean(dir)
		if seen[dir] {
			continue
		}
		seen[dir] = true
		if err := fsys.MkdirAll(dir, 0o755); err != nil {
			return nil, errors.Join(err, held.Close())
		}
		if err := take(dir); err != nil {
			return nil, err
		}
	}
	return held, nil
}

// Close gives the locks back, the root's last.
func (l locks) Close() error {
	var errs []error
	for i := len(l) - 1; i >= 0; i-- {
		errs = append(errs, l[i].Close())
	}
	return errors.Join(errs...)
}
