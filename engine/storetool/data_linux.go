package storetool

import (
	"errors"

	"golang.org/x/sys/unix"

	"rmq/internal/vfs"
)

// nextData skips a hole of a sparse file: the first place at or behind pos that may hold something
// else than zeros, at most to.
//
//nolint:unparam // the error is for systems whose seek can fail
func nextData(f vfs.File, pos, to int64) (int64, error) {
	fd, ok := f.Fd()
	if !ok || pos >= to {
		return pos, nil
	}
	at, err := unix.Seek(int(fd), pos, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // nothing but a hole up to the end
		return to, nil
	case err != nil:
		return pos, nil //nolint:nilerr // not every file system can tell: read it
	}
	return min(at, to), nil
}
